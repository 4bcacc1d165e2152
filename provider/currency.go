package provider

// currencies is ISO 4217's list of active codes with their numbers (list one of the
// maintenance agency, SIX, as of 2026), and the ones withdrawn since 2015 that old
// payments still name. Two decimals unless decimalsOf says otherwise.
const currencies = "AED784 AFN971 ALL008 AMD051 AOA973 ARS032 AUD036 AWG533 AZN944 BAM977 BBD052 BDT050 BGN975 " +
	"BHD048 BIF108 BMD060 BND096 BOB068 BOV984 BRL986 BSD044 BTN064 BWP072 BYN933 BZD084 CAD124 CDF976 CHE947 CHF756 " +
	"CHW948 CLF990 CLP152 CNY156 COP170 COU970 CRC188 CUP192 CVE132 CZK203 DJF262 DKK208 DOP214 DZD012 EGP818 ERN232 " +
	"ETB230 EUR978 FJD242 FKP238 GBP826 GEL981 GHS936 GIP292 GMD270 GNF324 GTQ320 GYD328 HKD344 HNL340 HTG332 HUF348 " +
	"IDR360 ILS376 INR356 IQD368 IRR364 ISK352 JMD388 JOD400 JPY392 KES404 KGS417 KHR116 KMF174 KPW408 KRW410 KWD414 " +
	"KYD136 KZT398 LAK418 LBP422 LKR144 LRD430 LSL426 LYD434 MAD504 MDL498 MGA969 MKD807 MMK104 MNT496 MOP446 MRU929 " +
	"MUR480 MVR462 MWK454 MXN484 MXV979 MYR458 MZN943 NAD516 NGN566 NIO558 NOK578 NPR524 NZD554 OMR512 PAB590 PEN604 " +
	"PGK598 PHP608 PKR586 PLN985 PYG600 QAR634 RON946 RSD941 RUB643 RWF646 SAR682 SBD090 SCR690 SDG938 SEK752 SGD702 " +
	"SHP654 SLE925 SOS706 SRD968 SSP728 STN930 SVC222 SYP760 SZL748 THB764 TJS972 TMT934 TND788 TOP776 TRY949 TTD780 " +
	"TWD901 TZS834 UAH980 UGX800 USD840 USN997 UYI940 UYU858 UYW927 UZS860 VED926 VES928 VND704 VUV548 WST882 XAF950 " +
	"XCD951 XCG532 XOF952 XPF953 YER886 ZAR710 ZMW967 ZWG924 " +
	"ANG532 BYR974 CUC931 HRK191 LTL440 LVL428 MRO478 SLL694 STD678 VEF937 ZWL932"

// activeCurrencies is how many of them stand in order at the beginning.
const activeCurrencies = 165

// decimalsOf lists what has not two decimals.
const decimalsOf = "BIF0 CLP0 DJF0 GNF0 ISK0 JPY0 KMF0 KRW0 PYG0 RWF0 UGX0 UYI0 VND0 VUV0 XAF0 XOF0 XPF0 BYR0 " +
	"BHD3 IQD3 JOD3 KWD3 LYD3 OMR3 TND3 CLF4 UYW4"

// currencyExponent gives the decimals of an ISO 4217 code in upper case.
func currencyExponent(code string) (int, bool) {
	if len(code) != 3 {
		return 0, false
	}
	for i := 0; i+4 <= len(decimalsOf); i += 5 {
		if decimalsOf[i:i+3] == code {
			return int(decimalsOf[i+3] - '0'), true
		}
	}
	if activeCurrency([3]byte{code[0], code[1], code[2]}) >= 0 {
		return 2, true
	}
	for i := activeCurrencies * 7; i+6 <= len(currencies); i += 7 {
		if currencies[i:i+3] == code {
			return 2, true
		}
	}
	return 0, false
}

// activeCurrency is the place of an active code in the list, or -1.
func activeCurrency(code [3]byte) int {
	low, high := 0, activeCurrencies
	for low < high {
		mid := (low + high) / 2
		switch at := currencies[mid*7 : mid*7+3]; {
		case at == string(code[:]):
			return mid
		case at < string(code[:]):
			low = mid + 1
		default:
			high = mid
		}
	}
	return -1
}

// currencyByNumber gives the code of an ISO 4217 number ("980", "36" with its zeros
// lost).
func currencyByNumber(num string) (string, bool) {
	for len(num) < 3 {
		num = "0" + num
	}
	for i := 0; i+6 <= len(currencies); i += 7 {
		if currencies[i+3:i+6] == num {
			return currencies[i : i+3], true
		}
	}
	return "", false
}

// currencyCode reads a currency as providers write it: uah, UAH, 980. What is no
// currency is handed back in upper case, without an exponent.
func currencyCode(s string) string {
	if s == "" || len(s) > 12 {
		return ""
	}
	numeric, upper := true, true
	for i := 0; i < len(s); i++ {
		c := s[i]
		numeric = numeric && '0' <= c && c <= '9'
		upper = upper && ('A' <= c && c <= 'Z' || '0' <= c && c <= '9')
		if c <= ' ' || c > '~' {
			return ""
		}
	}
	if numeric {
		code, _ := currencyByNumber(s)
		return code
	}
	if upper {
		return s
	}
	b := []byte(s)
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - 32
		}
	}
	return string(b)
}

// Decimals is how many decimals an ISO 4217 currency has, for people to read minor units.
func Decimals(code string) (int, bool) { return currencyExponent(code) }
