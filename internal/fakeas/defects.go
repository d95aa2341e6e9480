package fakeas

import (
	"encoding/base64"
	"maps"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// Defect is one thing that is wrong with a signed token.
type Defect string

// The defects of an ID token that a client must refuse. Those of the header,
// the signature, iss, aud and the times apply to logout tokens as well.
const (
	DefectIssuer         Defect = "wrong_iss"
	DefectIssuerSlash    Defect = "iss_slash"
	DefectNoIssuer       Defect = "no_iss"
	DefectAudience       Defect = "wrong_aud"
	DefectAudienceOther  Defect = "aud_and_other" // no azp
	DefectNoAudience     Defect = "no_aud"
	DefectAZP            Defect = "wrong_azp"
	DefectExpired        Defect = "expired"
	DefectExpiredFlipped Defect = "expired_flipped_signature"
	DefectIssuedLater    Defect = "iat_in_future"
	DefectNotBefore      Defect = "nbf_in_future"
	DefectNoExpiry       Defect = "no_exp"
	DefectNoIssuedAt     Defect = "no_iat"
	DefectNoSubject      Defect = "no_sub"
	DefectEmptySubject   Defect = "empty_sub"
	DefectNonce          Defect = "wrong_nonce"
	DefectNoNonce        Defect = "no_nonce"
	DefectOtherNonce     Defect = "nonce_of_another_login"
	DefectKey            Defect = "wrong_key"
	DefectFlipped        Defect = "flipped_signature"
	DefectNoSignature    Defect = "empty_signature"
	DefectNone           Defect = "alg_none"
	DefectNoneMixed      Defect = "alg_nOnE"
	DefectNoneUpper      Defect = "alg_NONE"
	DefectHMACSecret     Defect = "hs256_client_secret"
	DefectHMACPEM        Defect = "hs256_public_key_pem"
	DefectHMACDER        Defect = "hs256_public_key_der"
	DefectKeyType        Defect = "signature_of_another_key_type"
	DefectKeyID          Defect = "unknown_kid"
	DefectEmbeddedKey    Defect = "embedded_jwk"
	DefectAtHash         Defect = "wrong_at_hash"
	DefectTypeLogout     Defect = "typ_logout"
	DefectTypeAccess     Defect = "typ_access"
	DefectCritical       Defect = "unknown_crit"
	DefectACR            Defect = "wrong_acr"
	DefectAuthTime       Defect = "old_auth_time"
	DefectNotJWT         Defect = "not_a_jwt"
)

// Defects lists all defects, sorted.
func Defects() []Defect { return slices.Sorted(maps.Keys(defects)) }

// set and drop make the plain defects of one claim.
func set(name string, value any) func(*draft) { return func(d *draft) { d.claims[name] = value } }
func drop(name string) func(*draft)           { return func(d *draft) { delete(d.claims, name) } }

// shift moves times that are there, in seconds.
func shift(seconds int64, names ...string) func(*draft) {
	return func(d *draft) {
		for _, name := range names {
			if at, ok := d.claims[name].(int64); ok {
				d.claims[name] = at + seconds
			}
		}
	}
}

func typ(value string) func(*draft) { return func(d *draft) { d.header["typ"] = value } }

// none leaves the signature empty and names a spelling of "none" as alg.
func none(alg string) func(*draft) {
	return func(d *draft) {
		d.header["alg"] = alg
		d.method = nil
	}
}

// flip inverts the signature's middle byte.
func flip(d *draft) {
	d.finish = func(token string) string {
		head, tail := token[:strings.LastIndexByte(token, '.')+1], token[strings.LastIndexByte(token, '.')+1:]
		signature, err := base64.RawURLEncoding.DecodeString(tail)
		if err != nil {
			panic(err) // it was encoded just before
		}
		signature[len(signature)/2] ^= 0xff
		return head + base64.RawURLEncoding.EncodeToString(signature)
	}
}

const hour = int64(3600)

// expire makes a token of ten minutes ago, which is wholly in the past.
func expire(d *draft) {
	life := int64(60)
	if exp, ok := d.claims["exp"].(int64); ok {
		if iat, ok := d.claims["iat"].(int64); ok {
			life = exp - iat
		}
	}
	shift(-life-600, "iat", "exp")(d)
}

var defects = map[Defect]func(*draft){
	DefectIssuer:         set("iss", "https://other.example.test"),
	DefectIssuerSlash:    func(d *draft) { d.claims["iss"] = text(d.claims["iss"]) + "/" },
	DefectNoIssuer:       drop("iss"),
	DefectAudience:       set("aud", "somebody-else"),
	DefectAudienceOther:  func(d *draft) { d.claims["aud"] = []string{d.client.ID, "somebody-else"} },
	DefectNoAudience:     drop("aud"),
	DefectAZP:            set("azp", "somebody-else"),
	DefectExpired:        expire,
	DefectExpiredFlipped: func(d *draft) { expire(d); flip(d) },
	DefectIssuedLater:    shift(hour, "iat", "exp"),
	DefectNotBefore:      func(d *draft) { d.claims["nbf"] = d.claims["iat"]; shift(hour, "nbf", "exp")(d) },
	DefectNoExpiry:       drop("exp"),
	DefectNoIssuedAt:     drop("iat"),
	DefectNoSubject:      drop("sub"),
	DefectEmptySubject:   set("sub", ""),
	DefectNonce:          set("nonce", "a-nonce-that-nobody-asked-for"),
	DefectNoNonce:        drop("nonce"),
	DefectOtherNonce:     func(d *draft) { d.claims["nonce"] = d.otherNonce },
	DefectKey:            func(d *draft) { d.key = d.stranger.private },
	DefectFlipped:        flip,
	DefectNoSignature:    func(d *draft) { d.method = nil },
	DefectNone:           none("none"),
	DefectNoneMixed:      none("nOnE"),
	DefectNoneUpper:      none("NONE"),
	DefectHMACSecret:     func(d *draft) { d.hmac([]byte(d.client.Secret)) },
	DefectHMACPEM:        func(d *draft) { d.hmac(d.publicPEM()) },
	DefectHMACDER:        func(d *draft) { d.hmac(d.publicDER()) },
	DefectKeyType:        keyType,
	DefectKeyID:          func(d *draft) { d.header["kid"] = "unknown"; d.key = d.stranger.private },
	DefectEmbeddedKey:    func(d *draft) { d.header["jwk"] = d.stranger.jwk(); d.key = d.stranger.private },
	DefectAtHash:         func(d *draft) { d.claims["at_hash"] = atHash(d.own.alg, d.access+"x") },
	DefectTypeLogout:     typ("logout+jwt"),
	DefectTypeAccess:     typ("at+jwt"),
	DefectCritical:       func(d *draft) { d.header["crit"] = []string{"x-unknown"}; d.header["x-unknown"] = true },
	DefectACR:            set("acr", "urn:example:no-assurance"),
	DefectAuthTime:       shift(-24*hour, "auth_time"),
	DefectNotJWT:         func(d *draft) { d.finish = func(string) string { return "not.a-jwt" } },
}

// keyType keeps the header and signs with an elliptic key (or, where that is
// the header's algorithm, with a secret).
func keyType(d *draft) {
	if d.own.alg == "ES256" {
		d.method, d.key = jwt.SigningMethodHS256, []byte("secret")
		return
	}
	d.method, d.key = jwt.SigningMethodES256, d.strangerEC.private
}
