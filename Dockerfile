# Two stages: build a static binary, then an image with nothing in it but that and the CA certificates.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=docker
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X penstock/cli.Version=${VERSION}" -o /penstock . \
 && mkdir -p /data && chown 65532:65532 /data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /penstock /penstock
COPY --from=build --chown=65532:65532 /data /data
# 65532 is the conventional "nonroot"; a volume mounted at /data must be writable by it.
USER 65532:65532
VOLUME /data
EXPOSE 8080 8081
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/penstock", "healthcheck", "-c", "/etc/penstock/penstock.yaml"]
ENTRYPOINT ["/penstock"]
CMD ["serve", "-c", "/etc/penstock/penstock.yaml"]
