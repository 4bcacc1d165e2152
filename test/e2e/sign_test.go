package e2e

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The signers here were written from the providers' documents with the standard library
// alone. They share no code with the product, so an error there is not repeated here.

// delivery is one request, and what must come of it.
type delivery struct {
	source string
	header [][2]string
	body   []byte
	token  string // stands in the body once; names the delivery wherever it turns up

	// of the event
	typ, ceid, order, currency string
	minor                      int64
	payload                    string // what "payload" must be, byte for byte; "" = not compared
	ack                        func(t *testing.T, answer []byte)
}

// sender makes the n-th delivery of one source, signed at the given time.
type sender struct {
	source string
	conf   string // the source's YAML
	stale  bool   // its scheme has a timestamp that grows stale
	make   func(n int, at time.Time) delivery
	tamper func(d *delivery) // spoils the signed bytes; nil = flip a digit of the token's number
}

func mac(h func() hash.Hash, key, msg []byte) []byte {
	m := hmac.New(h, key)
	m.Write(msg)
	return m.Sum(nil)
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func jsonType(pairs ...[2]string) [][2]string {
	return append([][2]string{{"Content-Type", "application/json"}}, pairs...)
}

const formType = "application/x-www-form-urlencoded"

func token(source string, n int) string { return fmt.Sprintf("e2e-%s-%06d", source, n) }

func senders(t *testing.T) []sender {
	t.Helper()
	classic, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return []sender{
		stripeSender(), liqpaySender("liqpay", "sha1"), liqpaySender("liqpay7", "sha3-256"), wayforpaySender(), paddleSender(),
		paddleClassicSender(t, classic), payuSender(), skyrimSender(), githubSender(), shopifySender(), slackSender(), metaSender(), standardSender(),
	}
}

func stripeSender() sender {
	const secret = "whsec_e2e_0123456789abcdef0123"
	return sender{source: "stripe", stale: true, conf: "{name: stripe, provider: stripe, credentials: {secrets: [" + secret + "]}}",
		make: func(n int, at time.Time) delivery {
			tok := token("stripe", n)
			body := fmt.Appendf(nil, "{\n  \"id\": \"evt_%s\",\n  \"object\": \"event\",\n  \"created\": 1779999998,\n  \"data\": {\"object\": {\"id\": \"pi_%d\", \"object\": \"payment_intent\", \"amount\": 12%03d, \"amount_received\": 12%03d, \"currency\": \"eur\", \"status\": \"succeeded\", \"metadata\": {\"order_id\": \"ORD-%d\"}}},\n  \"livemode\": true,\n  \"type\": \"payment_intent.succeeded\"\n}", tok, n, n%1000, n%1000, n)
			ts := strconv.FormatInt(at.Unix(), 10)
			sig := hex.EncodeToString(mac(sha256.New, []byte(secret), append([]byte(ts+"."), body...)))
			return delivery{source: "stripe", token: tok, body: body, header: jsonType([2]string{"Stripe-Signature", "t=" + ts + ",v1=" + sig}),
				typ: "payment.captured", ceid: "evt_" + tok, order: fmt.Sprintf("ORD-%d", n), currency: "EUR", minor: 12000 + int64(n%1000), payload: string(body)}
		}}
}

func liqpaySender(name, alg string) sender {
	const key = "sandbox_e2e_private_key_0123456789"
	sum := func(b []byte) []byte {
		if alg == "sha1" {
			s := sha1.Sum(b)
			return s[:]
		}
		s := sha3.Sum256(b)
		return s[:]
	}
	return sender{source: name, conf: "{name: " + name + ", provider: liqpay, settings: {algorithm: " + alg + "}, credentials: {public_key: sandbox_i00000000001, private_key: " + key + "}}",
		make: func(n int, _ time.Time) delivery {
			tok := token(name, n)
			inner := fmt.Sprintf(`{"payment_id":%d,"action":"pay","status":"success","version":3,"public_key":"sandbox_i00000000001","order_id":"%s","amount":92.32,"currency":"UAH","description":"\u041e\u043f\u043b\u0430\u0442\u0430 \/ test","create_date":1779999990000,"end_date":1779999999000}`, 4000000+n, tok)
			data := b64([]byte(inner))
			body := url.Values{"data": {data}, "signature": {b64(sum([]byte(key + data + key)))}}.Encode()
			return delivery{source: name, token: tok, body: []byte(body), header: [][2]string{{"Content-Type", formType}},
				typ: "payment.captured", order: tok, currency: "UAH", minor: 9232, payload: inner}
		},
		tamper: func(d *delivery) {
			v, _ := url.ParseQuery(string(d.body))
			raw, _ := base64.StdEncoding.DecodeString(v.Get("data"))
			v.Set("data", b64(bytes.Replace(raw, []byte("92.32"), []byte("99.32"), 1)))
			d.body = []byte(v.Encode())
		}}
}

func wayforpaySender() sender {
	const key, account = "e2e_wayforpay_secret_0123456789", "e2e_shop"
	return sender{source: "wayforpay", conf: "{name: wayforpay, provider: wayforpay, credentials: {merchant_account: " + account + ", secret_key: " + key + "}}",
		make: func(n int, _ time.Time) delivery {
			tok := token("wayforpay", n)
			signed := strings.Join([]string{account, tok, "1547.36", "UAH", "541963", "41****8217", "Approved", "1100"}, ";")
			sig := hex.EncodeToString(mac(md5.New, []byte(key), []byte(signed)))
			body := fmt.Appendf(nil, `{"merchantAccount":"%s","orderReference":"%s","merchantSignature":"%s","amount":1547.36,"currency":"UAH","authCode":"541963","email":"a@example.com","createdDate":1779999980,"processingDate":%d,"cardPan":"41****8217","transactionStatus":"Approved","reason":"Ok","reasonCode":1100,"fee":23.21}`, account, tok, sig, 1779990000+n)
			return delivery{source: "wayforpay", token: tok, body: body, header: jsonType(), typ: "payment.captured", order: tok, currency: "UAH", minor: 154736, payload: string(body),
				ack: func(t *testing.T, answer []byte) {
					t.Helper()
					var a struct {
						OrderReference, Status, Signature string
						Time                              int64
					}
					if err := json.Unmarshal(answer, &a); err != nil {
						t.Errorf("wayforpay's answer: %v in %s", err, answer)
						return
					}
					want := hex.EncodeToString(mac(md5.New, []byte(key), fmt.Appendf(nil, "%s;accept;%d", tok, a.Time)))
					if a.OrderReference != tok || a.Status != "accept" || a.Signature != want || time.Since(time.Unix(a.Time, 0)).Abs() > time.Minute {
						t.Errorf("wayforpay's answer %s; want it signed %s", answer, want)
					}
				}}
		},
		tamper: func(d *delivery) { d.body = bytes.Replace(d.body, []byte("1547.36"), []byte("1547.37"), 1) }}
}

func paddleSender() sender {
	const secret = "pdl_ntfset_e2e_0123456789abcdef"
	return sender{source: "paddle_billing", stale: true, conf: "{name: paddle_billing, provider: paddle_billing, credentials: {secrets: [" + secret + "]}}",
		make: func(n int, at time.Time) delivery {
			tok := token("paddle_billing", n)
			body := fmt.Appendf(nil, `{"event_id":"evt_%s","event_type":"transaction.completed","occurred_at":"2026-05-28T20:26:40.123456Z","notification_id":"ntf_%d","data":{"id":"txn_%d","status":"completed","custom_data":{"order_id":"ORD-%d"},"currency_code":"USD","details":{"totals":{"grand_total":"2500","currency_code":"USD"}}}}`, tok, n, n, n)
			ts := strconv.FormatInt(at.Unix(), 10)
			sig := hex.EncodeToString(mac(sha256.New, []byte(secret), append([]byte(ts+":"), body...)))
			return delivery{source: "paddle_billing", token: tok, body: body, header: jsonType([2]string{"Paddle-Signature", "ts=" + ts + ";h1=" + sig}),
				typ: "payment.captured", ceid: "evt_" + tok, currency: "USD", minor: 2500, payload: string(body)}
		}}
}

func paddleClassicSender(t *testing.T, key *rsa.PrivateKey) sender {
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	pub := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	return sender{source: "paddle_classic", conf: "{name: paddle_classic, provider: paddle_classic, credentials: {public_key: " + strconv.Quote(pub) + "}}",
		make: func(n int, _ time.Time) delivery {
			tok := token("paddle_classic", n)
			f := map[string]string{"alert_id": strconv.Itoa(7000000 + n), "alert_name": "payment_succeeded", "balance_gross": "12.50", "sale_gross": "12.50", "currency": "EUR", "balance_currency": "EUR",
				"order_id": tok, "checkout_id": "chk-" + strconv.Itoa(n), "email": "zoë@example.com", "event_time": "2026-05-28 20:26:40", "passthrough": "", "quantity": "1"}
			names := make([]string, 0, len(f))
			for k := range f {
				names = append(names, k)
			}
			slices.Sort(names)
			ser := fmt.Sprintf("a:%d:{", len(names))
			for _, k := range names {
				ser += fmt.Sprintf("s:%d:\"%s\";s:%d:\"%s\";", len(k), k, len(f[k]), f[k])
			}
			sum := sha1.Sum([]byte(ser + "}"))
			sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA1, sum[:])
			if err != nil {
				panic(err)
			}
			v := url.Values{"p_signature": {b64(sig)}}
			for k, s := range f {
				v.Set(k, s)
			}
			return delivery{source: "paddle_classic", token: tok, body: []byte(v.Encode()), header: [][2]string{{"Content-Type", formType}}, typ: "payment.captured", currency: "EUR", minor: 1250}
		},
		tamper: func(d *delivery) {
			d.body = bytes.Replace(d.body, []byte("sale_gross=12.50"), []byte("sale_gross=92.50"), 1)
		}}
}

func payuSender() sender {
	const key = "e2e_payu_second_key_0123456789"
	return sender{source: "payu_eu", conf: "{name: payu_eu, provider: payu_eu, credentials: {second_key: " + key + "}}",
		make: func(n int, _ time.Time) delivery {
			tok := token("payu_eu", n)
			body := fmt.Appendf(nil, `{"order":{"orderId":"PU%d","extOrderId":"%s","orderCreateDate":"2026-05-28T20:26:40.000+02:00","notifyUrl":"https://hooks.example.com/in/payu_eu","customerIp":"127.0.0.1","merchantPosId":"145227","description":"x","currencyCode":"PLN","totalAmount":"21000","status":"COMPLETED"},"localReceiptDateTime":"2026-05-28T20:26:41.000+02:00","properties":[{"name":"PAYMENT_ID","value":"%d"}]}`, n, tok, 900000+n)
			sum := sha256.Sum256(append(slices.Clone(body), key...))
			return delivery{source: "payu_eu", token: tok, body: body, typ: "payment.captured", order: tok, currency: "PLN", minor: 21000, payload: string(body),
				header: jsonType([2]string{"OpenPayu-Signature", "sender=checkout;signature=" + hex.EncodeToString(sum[:]) + ";algorithm=SHA256;content=DOCUMENT"})}
		}}
}

const skyrimProvider = `
    provider:
      name: skyrimpay
      scheme: hash_concat
      algorithm: sha256
      fields: [merchant_id, amount, currency, order_id]
      required_signed: [order_id, amount, currency]
      signature: {field: signature, encoding: hex}
      event: {id: [order_id, status], type: status, order_id: order_id, amount: {path: amount, unit: major}, currency: currency}`

func skyrimSender() sender {
	const key = "e2e_skyrim_private_key_0123456789"
	return sender{source: "skyrimpay", conf: "\n    name: skyrimpay" + skyrimProvider + "\n    credentials: {private_key: " + key + "}",
		make: func(n int, _ time.Time) delivery {
			tok := token("skyrimpay", n)
			sum := sha256.Sum256([]byte("M1000" + "1299.50" + "UAH" + tok + key))
			body := fmt.Appendf(nil, `{"merchant_id":"M1000","amount":1299.50,"currency":"UAH","order_id":"%s","status":"paid","signature":"%x"}`, tok, sum)
			return delivery{source: "skyrimpay", token: tok, body: body, header: jsonType(), typ: "payment.captured", order: tok, currency: "UAH", minor: 129950, payload: string(body)}
		},
		tamper: func(d *delivery) { d.body = bytes.Replace(d.body, []byte("1299.50"), []byte("9299.50"), 1) }}
}

func githubSender() sender {
	const secret = "e2e-github-secret-0123456789"
	return sender{source: "github", conf: "{name: github, provider: github, credentials: {secrets: [" + secret + "]}}",
		make: func(n int, _ time.Time) delivery {
			tok := token("github", n)
			body := fmt.Appendf(nil, `{"action":"opened","issue":{"number":%d,"title":"%s <b>&"},"repository":{"id":1296269,"full_name":"octo/hello"}}`, n, tok)
			return delivery{source: "github", token: tok, body: body, typ: "github.issues", payload: string(body), header: jsonType(
				[2]string{"X-GitHub-Event", "issues"}, [2]string{"X-GitHub-Delivery", fmt.Sprintf("b2f4222b-8135-4743-8f25-%012d", n)},
				[2]string{"X-Hub-Signature-256", "sha256=" + hex.EncodeToString(mac(sha256.New, []byte(secret), body))})}
		}}
}

func shopifySender() sender {
	const secret = "shpss_e2e_0123456789abcdef"
	return sender{source: "shopify", conf: "{name: shopify, provider: shopify, credentials: {secrets: [" + secret + "]}}",
		make: func(n int, _ time.Time) delivery {
			tok := token("shopify", n)
			body := fmt.Appendf(nil, `{"id":82098284578%06d,"name":"%s","total_price":"12.50","currency":"EUR","test":false}`, n, tok)
			return delivery{source: "shopify", token: tok, body: body, payload: string(body), header: jsonType(
				[2]string{"X-Shopify-Topic", "orders/create"}, [2]string{"X-Shopify-Shop-Domain", "e2e.myshopify.com"},
				[2]string{"X-Shopify-Webhook-Id", fmt.Sprintf("d6be7fb8-9a39-4fe3-8203-%012d", n)}, [2]string{"X-Shopify-Event-Id", fmt.Sprintf("4279d361-f8b1-4acd-87f4-%012d", n)},
				[2]string{"X-Shopify-Hmac-Sha256", b64(mac(sha256.New, []byte(secret), body))})}
		}}
}

func slackSender() sender {
	const secret = "e2e0slack0signing0secret0123456789"
	return sender{source: "slack", stale: true, conf: "{name: slack, provider: slack, credentials: {secrets: [" + secret + "]}}",
		make: func(n int, at time.Time) delivery {
			tok := token("slack", n)
			body := fmt.Appendf(nil, `{"token":"z","team_id":"T061EG9R6","api_app_id":"A0MDYCDME","event":{"type":"app_mention","user":"U061F7AUR","text":"hi"},"type":"event_callback","event_id":"%s","event_time":1767225600}`, tok)
			ts := strconv.FormatInt(at.Unix(), 10)
			sig := "v0=" + hex.EncodeToString(mac(sha256.New, []byte(secret), append([]byte("v0:"+ts+":"), body...)))
			return delivery{source: "slack", token: tok, body: body, ceid: tok, typ: "slack.app_mention", header: jsonType([2]string{"X-Slack-Signature", sig}, [2]string{"X-Slack-Request-Timestamp", ts})}
		}}
}

func metaSender() sender {
	const secret = "e2e0meta0app0secret0123456789ab"
	return sender{source: "meta", conf: "{name: meta, provider: meta, credentials: {secrets: [" + secret + "], verify_token: e2e-verify-token-0123}}",
		make: func(n int, _ time.Time) delivery {
			tok := token("meta", n)
			body := fmt.Appendf(nil, `{"object":"whatsapp_business_account","entry":[{"id":"102290129340398","changes":[{"value":{"messaging_product":"whatsapp","metadata":{"display_phone_number":"15550783881","phone_number_id":"106540352242922"},"messages":[{"from":"16505551234","id":"wamid.%s","timestamp":"1749416383","type":"text","text":{"body":"\u0434\u0430"}}]},"field":"messages"}]}]}`, tok)
			return delivery{source: "meta", token: tok, body: body, header: jsonType([2]string{"X-Hub-Signature-256", "sha256=" + hex.EncodeToString(mac(sha256.New, []byte(secret), body))})}
		}}
}

func standardSender() sender {
	key := []byte("e2e-standard-webhooks-key-012345")
	return sender{source: "standard_webhooks", stale: true, conf: "{name: standard_webhooks, provider: standard_webhooks, credentials: {secrets: [whsec_" + b64(key) + "]}}",
		make: func(n int, at time.Time) delivery {
			tok := token("standard_webhooks", n)
			body := fmt.Appendf(nil, `{"type":"invoice.paid","timestamp":"2026-01-01T00:00:01Z","data":{"id":"inv_%d","amount":1250}}`, n)
			ts := strconv.FormatInt(at.Unix(), 10)
			sig := "v1," + b64(mac(sha256.New, key, append([]byte(tok+"."+ts+"."), body...)))
			return delivery{source: "standard_webhooks", token: tok, body: body, ceid: tok, typ: "standard_webhooks.invoice.paid", payload: string(body),
				header: jsonType([2]string{"webhook-id", tok}, [2]string{"webhook-timestamp", ts}, [2]string{"webhook-signature", sig})}
		},
		tamper: func(d *delivery) { d.body = bytes.Replace(d.body, []byte("1250"), []byte("9250"), 1) }}
}
