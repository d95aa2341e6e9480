package fakeas

import (
	"encoding/base64"
	"maps"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// Defect is one error in a signed token.
type Defect string

// A client must refuse an ID token with any of these defects. The defects of
// the header, the signature, iss, aud and the times, except DefectNoExpiry, apply to
// logout tokens, too.
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

// set and drop return defects that replace and remove one claim.
func set(name string, value any) func(*draft) { return func(d *draft) { d.claims[name] = value } }
func drop(name string) func(*draft)           { return func(d *draft) { delete(d.claims, name) } }

// shift returns a defect that moves the times in the named claims by seconds.
// It ignores missing claims.
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

// unsigned returns a defect with an empty signature and the given spelling of
// "none" as alg.
func unsigned(alg string) func(*draft) {
	return func(d *draft) {
		d.header["alg"] = alg
		d.method = nil
	}
}

// flipSignature inverts the signature's middle byte.
func flipSignature(d *draft) {
	d.transform = func(token string) string {
		head, tail := token[:strings.LastIndexByte(token, '.')+1], token[strings.LastIndexByte(token, '.')+1:]
		signature, err := base64.RawURLEncoding.DecodeString(tail)
		if err != nil {
			panic(err) // serialise has just encoded it
		}
		signature[len(signature)/2] ^= 0xff
		return head + base64.RawURLEncoding.EncodeToString(signature)
	}
}

const hour = int64(3600)

// expire moves the token's times into the past: it expired ten minutes ago.
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
	DefectAudience:       set("aud", "other-client"),
	DefectAudienceOther:  func(d *draft) { d.claims["aud"] = []string{d.client.ID, "other-client"} },
	DefectNoAudience:     drop("aud"),
	DefectAZP:            set("azp", "other-client"),
	DefectExpired:        expire,
	DefectExpiredFlipped: func(d *draft) { expire(d); flipSignature(d) },
	DefectIssuedLater:    shift(hour, "iat", "exp"),
	DefectNotBefore:      func(d *draft) { d.claims["nbf"] = d.claims["iat"]; shift(hour, "nbf", "exp")(d) },
	DefectNoExpiry:       drop("exp"),
	DefectNoIssuedAt:     drop("iat"),
	DefectNoSubject:      drop("sub"),
	DefectEmptySubject:   set("sub", ""),
	DefectNonce:          set("nonce", "unknown-nonce"),
	DefectNoNonce:        drop("nonce"),
	DefectOtherNonce:     func(d *draft) { d.claims["nonce"] = d.otherNonce },
	DefectKey:            func(d *draft) { d.key = d.unpublished.private },
	DefectFlipped:        flipSignature,
	DefectNoSignature:    func(d *draft) { d.method = nil },
	DefectNone:           unsigned("none"),
	DefectNoneMixed:      unsigned("nOnE"),
	DefectNoneUpper:      unsigned("NONE"),
	DefectHMACSecret:     func(d *draft) { d.useHMAC([]byte(d.client.Secret)) },
	DefectHMACPEM:        func(d *draft) { d.useHMAC(d.publicPEM()) },
	DefectHMACDER:        func(d *draft) { d.useHMAC(d.publicDER()) },
	DefectKeyType:        signWithAnotherKeyType,
	DefectKeyID:          func(d *draft) { d.header["kid"] = "unknown"; d.key = d.unpublished.private },
	DefectEmbeddedKey:    func(d *draft) { d.header["jwk"] = d.unpublished.jwk(); d.key = d.unpublished.private },
	DefectAtHash:         func(d *draft) { d.claims["at_hash"] = atHash(d.signer.alg, d.access+"x") },
	DefectTypeLogout:     typ("logout+jwt"),
	DefectTypeAccess:     typ("at+jwt"),
	DefectCritical:       func(d *draft) { d.header["crit"] = []string{"x-unknown"}; d.header["x-unknown"] = true },
	DefectACR:            set("acr", "urn:example:no-assurance"),
	DefectAuthTime:       shift(-24*hour, "auth_time"),
	DefectNotJWT:         func(d *draft) { d.transform = func(string) string { return "not.a-jwt" } },
}

// signWithAnotherKeyType keeps the header and signs with an elliptic curve key,
// or with a secret if the header's algorithm is ES256.
func signWithAnotherKeyType(d *draft) {
	if d.signer.alg == "ES256" {
		d.method, d.key = jwt.SigningMethodHS256, []byte("secret")
		return
	}
	d.method, d.key = jwt.SigningMethodES256, d.unpublishedEC.private
}
