package faults

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The signers were written from the providers' documents and share no code with the product.

// delivery is one request. Its token stands in the body and names it wherever it turns up.
type delivery struct {
	source  string
	token   string
	body    []byte
	payload string             // what must stand in the event, byte for byte
	header  func() [][2]string // signed now
	forged  func() [][2]string // by somebody without the key
	e       *entity
}

// sender makes the step-th change of the n-th entity of one source.
type sender struct {
	source string
	conf   string // the source's YAML; %MORE% is room for another secret
	make   func(n, step int) delivery
}

func mac(h func() hash.Hash, key string, msg string) []byte {
	m := hmac.New(h, []byte(key))
	m.Write([]byte(msg))
	return m.Sum(nil)
}

func token(source string, n, step int) string { return fmt.Sprintf("flt-%s-%07d-%d", source, n, step) }

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// signed makes a delivery whose headers depend on the key and on the time of sending.
func signed(source string, n, step int, body, payload, key string, header func(key, ts string) [][2]string) delivery {
	h := func(key string) func() [][2]string {
		return func() [][2]string {
			return append(header(key, strconv.FormatInt(time.Now().Unix(), 10)), [2]string{"Content-Type", "application/json"})
		}
	}
	return delivery{source: source, token: token(source, n, step), body: []byte(body), payload: payload, header: h(key), forged: h("not-the-key-of-anybody")}
}

// filler makes bodies of different sizes, some of them large.
func filler(n, step int) string {
	size := n * 7919 % 300
	if n%61 == step {
		size = 20_000 + n*104729%60_000
	}
	return strings.Repeat("0123456789abcdef", size/16+1)[:size]
}

func senders() []sender {
	return []sender{stripe(), github(), standard(), liqpay(), skyrim()}
}

func stripe() sender {
	const key = "whsec_faults_0123456789abcdef"
	state := []string{"requires_action", "processing", "amount_capturable_updated", "succeeded"}
	return sender{"stripe", "{name: stripe, provider: stripe, credentials: {secrets: [" + key + "%MORE%]}}", func(n, step int) delivery {
		body := fmt.Sprintf("{\n \"id\": \"evt_%s\", \"object\": \"event\", \"created\": %d,\n \"data\": {\"object\": {\"id\": \"pi_%d\", \"object\": \"payment_intent\", \"amount\": 1250, \"amount_received\": 1250, \"currency\": \"eur\", \"status\": \"succeeded\", \"metadata\": {\"order_id\": \"O-%d\", \"x\": \"%s\"}}},\n \"livemode\": true, \"type\": \"payment_intent.%s\"}",
			token("stripe", n, step), 1779999990+step, n, n, filler(n, step), state[step])
		return signed("stripe", n, step, body, body, key, func(key, ts string) [][2]string {
			return [][2]string{{"Stripe-Signature", "t=" + ts + ",v1=" + hex.EncodeToString(mac(sha256.New, key, ts+"."+body))}}
		})
	}}
}

func github() sender {
	const key = "faults-github-secret-0123456789"
	return sender{"github", "{name: github, provider: github, credentials: {secrets: [" + key + "%MORE%]}}", func(n, step int) delivery {
		body := fmt.Sprintf(`{"action":"opened","issue":{"number":%d,"title":"%s <b>&","body":"%s"},"repository":{"id":%d,"full_name":"octo/r%d"}}`,
			step+1, token("github", n, step), filler(n, step), n, n)
		return signed("github", n, step, body, body, key, func(key, _ string) [][2]string {
			return [][2]string{{"X-GitHub-Event", "issues"}, {"X-GitHub-Delivery", fmt.Sprintf("b2f4222b-8135-474%d-8f25-%012d", step, n)},
				{"X-Hub-Signature-256", "sha256=" + hex.EncodeToString(mac(sha256.New, key, body))}}
		})
	}}
}

func standardMAC(key, id, ts, body string) string {
	return b64(mac(sha256.New, key, id+"."+ts+"."+body))
}

func standard() sender {
	const key = "faults-standard-webhooks-key-012"
	return sender{"standard", "{name: standard, provider: standard_webhooks, credentials: {secrets: [whsec_" + b64([]byte(key)) + "]}}", func(n, step int) delivery {
		id := token("standard", n, step)
		body := fmt.Sprintf(`{"type":"invoice.s%d","timestamp":"2026-01-01T00:00:01Z","data":{"id":"inv_%d","note":"%s %s"}}`, step, n, id, filler(n, step))
		return signed("standard", n, step, body, body, key, func(key, ts string) [][2]string {
			return [][2]string{{"webhook-id", id}, {"webhook-timestamp", ts}, {"webhook-signature", "v1," + standardMAC(key, id, ts, body)}}
		})
	}}
}

func liqpay() sender {
	const key = "sandbox_faults_private_key_0123456789"
	status := []string{"prepared", "processing", "wait_accept", "success"}
	return sender{"liqpay", "{name: liqpay, provider: liqpay, settings: {algorithm: sha1}, credentials: {public_key: sandbox_i00000000001, private_key: " + key + "}}", func(n, step int) delivery {
		inner := fmt.Sprintf(`{"payment_id":%d,"action":"pay","status":"%s","version":3,"public_key":"sandbox_i00000000001","order_id":"L-%d","amount":92.32,"currency":"UAH","description":"%s \u041e \/ %s","create_date":1779999990000,"end_date":%d}`,
			4000000+n, status[step], n, token("liqpay", n, step), filler(n, step), 1779999990000+step)
		data := b64([]byte(inner))
		form := func(key string) string {
			sum := sha1.Sum([]byte(key + data + key))
			return url.Values{"data": {data}, "signature": {b64(sum[:])}}.Encode()
		}
		h := func() [][2]string { return [][2]string{{"Content-Type", "application/x-www-form-urlencoded"}} }
		d := delivery{source: "liqpay", token: token("liqpay", n, step), body: []byte(form(key)), payload: inner, header: h, forged: h}
		if n >= 9_000_000 { // the signature is in the body: who forges, forges that
			d.body = []byte(form("not-the-key-of-anybody"))
		}
		return d
	}}
}

// skyrim is a payment system that nobody has heard of, defined in the configuration.
func skyrim() sender {
	const key = "faults_skyrim_private_key_0123456789"
	return sender{"skyrimpay", `
    name: skyrimpay
    provider:
      name: skyrimpay
      scheme: hash_concat
      algorithm: sha256
      fields: [merchant_id, amount, currency, order_id]
      required_signed: [order_id, amount, currency]
      signature: {field: signature, encoding: hex}
      event: {id: [order_id, status], type: status, order_id: order_id, amount: {path: amount, unit: major}, currency: currency}
    credentials: {private_key: ` + key + "}", func(n, step int) delivery {
		tok := token("skyrimpay", n, step)
		k := key
		if n >= 9_000_000 {
			k = "not-the-key-of-anybody"
		}
		sum := sha256.Sum256([]byte("M1000" + "1299.50" + "UAH" + tok + k))
		body := fmt.Sprintf(`{"merchant_id":"M1000","amount":1299.50,"currency":"UAH","order_id":"%s","status":"paid","signature":"%x"}`, tok, sum)
		h := func() [][2]string { return [][2]string{{"Content-Type", "application/json"}} }
		return delivery{source: "skyrimpay", token: tok, body: []byte(body), payload: body, header: h, forged: h}
	}}
}
