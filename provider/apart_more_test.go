package provider

// pairsOfOthers are the pairs of the bank, wallet and regional providers whose documents
// are of other kinds, and of those whose events name no sum at all.
func pairsOfOthers() []apart {
	braintree := `<notification><timestamp type="datetime">2026-05-28T20:26:40Z</timestamp><kind>#1</kind><subject>#2</subject></notification>`
	subscription := `<subscription><id>s</id><transactions type="array"><transaction><id>#1</id><amount>9.00</amount><currency-iso-code>EUR</currency-iso-code></transaction></transactions></subscription>`
	paypal := `{"id":"#1","event_type":"#2","create_time":"2026-05-28T20:26:40Z","resource":{"id":"#3","status":"COMPLETED","amount":{"value":"1.00","currency_code":"EUR"},"links":[{"rel":"up","href":"https://api.paypal.com/v2/payments/captures/C"}]}}`
	vipps := `{"msn":"1","reference":"o","pspReference":"#1","name":"#2","amount":{"currency":"NOK","value":100},"timestamp":"2026-05-28T20:26:40Z","success":true}`
	recurring := `{"agreementId":"a","chargeId":"#1","eventType":"recurring.charge-captured.v1","amount":100,"amountCaptured":100,"currency":"NOK","occurred":"2026-05-28T20:26:40Z"}`
	alipay := "notify_type=trade_status_sync&notify_id=#1&trade_no=#2&out_trade_no=o&trade_status=TRADE_SUCCESS&total_amount=9.00#3"
	trustly := `{"method":"#1","params":{"data":{"amount":"1.00","currency":"EUR","messageid":"o","orderid":"#2","notificationid":"#3"}}}`
	wechat := `{"id":"#1","event_type":"#2","resource":{"out_trade_no":"o","transaction_id":"#3","#4amount":{"total":900,"refund":100}}}`
	payment := `{"webhook_type":"PAYMENT_INITIATION","webhook_code":"PAYMENT_STATUS_UPDATE","payment_id":"#1","new_payment_status":"PAYMENT_STATUS_EXECUTED","timestamp":"2026-05-28T20:26:40Z"}`
	truelayer := `{"type":"#1","event_id":"#2","payment_id":"#3","refund_id":"#4"}`
	p24 := `{"merchantId":1,"posId":1,"sessionId":"#1","amount":100,"originAmount":100,"currency":"PLN","orderId":#2,"methodId":1,"statement":"s"}`
	dodo := `{"business_id":"b","type":"refund.succeeded","data":{"refund_id":"#1","payment_id":"p","amount":100,"currency":"EUR"}}`
	paymob := `{"type":"TRANSACTION","obj":{"id":1,"success":true,"pending":false,"is_refunded":true,"refunded_amount_cents":#1,"amount_cents":900,"currency":"EGP","created_at":"1","integration_id":1,"owner":1,"order":{"id":5}}}`
	return []apart{
		{name: "alipay", what: "refund", is: "refund.succeeded", a: in(alipay, "n1", "1", "&refund_fee=1.00&out_biz_no=r1"), b: in(alipay, "n2", "1", "&refund_fee=2.00&out_biz_no=r2")},
		{name: "alipay", what: "withholding", is: "payment.captured", a: in(alipay, "n1", "1", "&agreement_no=g"), b: in(alipay, "n2", "2", "&agreement_no=g")},
		{name: "braintree", what: "renewal", is: "payment.captured", a: in(braintree, "subscription_charged_successfully", in(subscription, "t1")), b: in(braintree, "subscription_charged_successfully", in(subscription, "t2"))},
		{name: "braintree", what: "attempt", is: "payment.failed", a: in(braintree, "subscription_charged_unsuccessfully", in(subscription, "t1")), b: in(braintree, "subscription_charged_unsuccessfully", in(subscription, "t2"))},
		{name: "mercadopago", what: "payment", is: "mercadopago.payment.updated", query: "?data.id=1", a: `{"action":"payment.updated","id":7,"data":{"id":"1"}}`, b: `{"action":"payment.updated","id":8,"data":{"id":"1"}}`},
		{name: "nowpayments", what: "deposit on top", is: "payment.captured", a: `{"payment_id":1,"payment_status":"finished","price_amount":9,"price_currency":"usd","actually_paid":0.1,"order_id":"o"}`, b: `{"payment_id":2,"parent_payment_id":1,"payment_status":"finished","price_amount":9,"price_currency":"usd","actually_paid":0.1,"order_id":"o"}`},
		{name: "nowpayments", what: "withdrawal", is: "payout.paid", a: `{"id":"1","batch_withdrawal_id":"b","status":"FINISHED","amount":"1","currency":"btc"}`, b: `{"id":"2","batch_withdrawal_id":"b","status":"FINISHED","amount":"1","currency":"btc"}`},
		{name: "payfast", what: "renewal", is: "payment.captured", a: "m_payment_id=o&pf_payment_id=11&payment_status=COMPLETE&amount_gross=15.00&merchant_id=1&token=t", b: "m_payment_id=o&pf_payment_id=12&payment_status=COMPLETE&amount_gross=15.00&merchant_id=1&token=t"},
		{name: "paysera", what: "payment", is: "payment.captured", a: "type=macro&status=1&requestid=1&projectid=9&orderid=o&amount=100&currency=EUR", b: "type=macro&status=1&requestid=2&projectid=9&orderid=o&amount=100&currency=EUR"},
		{name: "przelewy24", what: "payment", is: "payment.authorized", a: in(p24, "o", "1"), b: in(p24, "o", "2")},
		{name: "przelewy24", what: "refund", is: "refund.succeeded", a: `{"orderId":1,"sessionId":"o","merchantId":1,"refundsUuid":"r1","amount":100,"currency":"PLN","status":0}`, b: `{"orderId":1,"sessionId":"o","merchantId":1,"refundsUuid":"r2","amount":100,"currency":"PLN","status":0}`},
		{name: "tpay", what: "payment", is: "payment.captured", a: "id=1&tr_id=TR-1&tr_date=2026-05-28 20:26:40&tr_crc=o&tr_amount=1.00&tr_paid=1.00&tr_status=TRUE&tr_error=none", b: "id=1&tr_id=TR-2&tr_date=2026-05-28 20:26:40&tr_crc=o&tr_amount=1.00&tr_paid=1.00&tr_status=TRUE&tr_error=none"},
		{name: "trustly", what: "credit", is: "payment.captured", a: in(trustly, "credit", "1", "1"), b: in(trustly, "credit", "1", "2")},
		{name: "trustly", what: "refund", is: "refund.succeeded", a: in(trustly, "debit", "1", "1"), b: in(trustly, "debit", "1", "2")},
		{name: "trustly", what: "withdrawal", is: "payout.paid", a: in(trustly, "payoutconfirmation", "1", "1"), b: in(trustly, "payoutconfirmation", "2", "2")},
		{name: "vipps", what: "capture", is: "payment.captured", a: in(vipps, "1", "CAPTURED"), b: in(vipps, "2", "CAPTURED")},
		{name: "vipps", what: "refund", is: "refund.succeeded", a: in(vipps, "1", "REFUNDED"), b: in(vipps, "2", "REFUNDED")},
		{name: "vipps", what: "charge", is: "payment.captured", a: in(recurring, "c1"), b: in(recurring, "c2")},
		{name: "wechatpay", what: "payment", is: "payment.captured", a: in(wechat, "EV-1", "TRANSACTION.SUCCESS", "1", ""), b: in(wechat, "EV-2", "TRANSACTION.SUCCESS", "2", "")},
		{name: "wechatpay", what: "refund", is: "refund.succeeded", a: in(wechat, "EV-1", "REFUND.SUCCESS", "1", `refund_id":"r1","`), b: in(wechat, "EV-2", "REFUND.SUCCESS", "1", `refund_id":"r2","`)},
		{name: "paypal", what: "refund", is: "refund.succeeded", a: in(paypal, "WH-1", "PAYMENT.CAPTURE.REFUNDED", "R1"), b: in(paypal, "WH-2", "PAYMENT.CAPTURE.REFUNDED", "R2")},
		{name: "paypal", what: "capture", is: "payment.captured", a: in(paypal, "WH-1", "PAYMENT.CAPTURE.COMPLETED", "C1"), b: in(paypal, "WH-2", "PAYMENT.CAPTURE.COMPLETED", "C2")},
		{name: "plaid", what: "payment", is: "payment.captured", a: in(payment, "1"), b: in(payment, "2")},
		{name: "truelayer", what: "payment", is: "payment.captured", a: in(truelayer, "payment_executed", "e1", "1", ""), b: in(truelayer, "payment_executed", "e2", "2", "")},
		{name: "truelayer", what: "refund", is: "refund.succeeded", a: in(truelayer, "refund_executed", "e1", "1", "r1"), b: in(truelayer, "refund_executed", "e2", "1", "r2")},
		{name: "iyzico", what: "payment", is: "payment.captured", a: `{"iyziEventType":"API_AUTH","paymentId":1,"paymentConversationId":"o","status":"SUCCESS"}`, b: `{"iyziEventType":"API_AUTH","paymentId":2,"paymentConversationId":"o","status":"SUCCESS"}`},
		{name: "iyzico_callback", what: "authentication", is: "iyzico.callback", a: "status=success&paymentId=1&conversationId=o&mdStatus=1", b: "status=success&paymentId=2&conversationId=o&mdStatus=1"},
		{name: "dwolla", what: "transfer", is: "dwolla.transfer_completed", a: `{"id":"1","resourceId":"r1","topic":"transfer_completed"}`, b: `{"id":"2","resourceId":"r2","topic":"transfer_completed"}`},
		{name: "adyen_header", what: "transfer", is: "adyen.balancePlatform.transfer.updated", a: `{"type":"balancePlatform.transfer.updated","data":{"id":"1","status":"captured","amount":{"value":100,"currency":"EUR"}}}`, b: `{"type":"balancePlatform.transfer.updated","data":{"id":"2","status":"captured","amount":{"value":100,"currency":"EUR"}}}`},
		{name: "generic_hash_concat", what: "payment", is: "payment.captured", a: `{"merchant_id":"m","amount":"1.00","currency":"EUR","order_id":"1","status":"paid"}`, b: `{"merchant_id":"m","amount":"1.00","currency":"EUR","order_id":"2","status":"paid"}`},
		{name: "paymob", what: "partial refund of one payment", is: "refund.succeeded", a: in(paymob, "100"), b: in(paymob, "200")},
		{name: "woocommerce", what: "order", is: "woocommerce.order.updated", headers: [2]string{"X-WC-Webhook-Delivery-ID", "d1"}, a: `{"id":1,"status":"processing","total":"1.00","currency":"EUR"}`, b: `{"id":2,"status":"processing","total":"1.00","currency":"EUR"}`},
		{name: "standard_webhooks", what: "refund", is: "refund.succeeded", headers: [2]string{"webhook-id", "m1"}, a: in(dodo, "r1"), b: in(dodo, "r2")},
	}
}
