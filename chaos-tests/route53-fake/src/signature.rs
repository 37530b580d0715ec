//! Signature Version 4, checked from the raw request (SIGV4, "Create a signed AWS API request").

use std::{fmt::Write as _, time::UNIX_EPOCH};

use ring::{digest, hmac};

use crate::http::Request;

/// What a caller must know.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Access key id.
    pub key_id: String,
    /// Secret access key.
    pub secret: String,
    /// For temporary credentials.
    pub session_token: Option<String>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

/// Days since 1970 of a date (Howard Hinnant's `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn seconds(stamp: &str) -> Option<i64> {
    let number = |from: usize, to: usize| stamp.get(from..to)?.parse::<i64>().ok();
    let day = days(number(0, 4)?, number(4, 6)?, number(6, 8)?);
    Some(day * 86_400 + number(9, 11)? * 3600 + number(11, 13)? * 60 + number(13, 15)?)
}

/// Error code (ERRORS) and message when the request is not signed as it must be.
pub fn check(
    request: &Request,
    credentials: &Credentials,
    region: &str,
) -> Result<(), (&'static str, String)> {
    let missing = |what: &str| ("MissingAuthenticationToken", format!("{what} is missing"));
    let incomplete = |what: &str| ("IncompleteSignature", what.to_owned());
    let authorization = request.header("authorization").ok_or_else(|| missing("Authorization"))?;
    let rest =
        authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or_else(|| incomplete("not AWS4-HMAC-SHA256"))?;
    let part = |name: &str| {
        let found = rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
        found.ok_or_else(|| incomplete(&format!("{name} is missing")))
    };
    let (credential, signed, given) = (part("Credential")?, part("SignedHeaders")?, part("Signature")?);
    let scope: Vec<&str> = credential.split('/').collect();
    let [key_id, date, given_region, service, end] = scope[..] else {
        return Err(incomplete("Credential has five parts"));
    };
    if key_id != credentials.key_id {
        return Err(("InvalidClientTokenId", "The security token included in the request is invalid".into()));
    }
    // Route 53 is global and signed for one region (General Reference, "Route 53 endpoints and quotas").
    if (given_region, service, end) != (region, "route53", "aws4_request") {
        let message =
            format!("Credential should be scoped to {region}/route53/aws4_request, not {credential}");
        return Err(("SignatureDoesNotMatch", message));
    }
    let stamp = request.header("x-amz-date").ok_or_else(|| missing("X-Amz-Date"))?;
    let now = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() as i64);
    let age = now - seconds(stamp).ok_or_else(|| incomplete("X-Amz-Date"))?;
    // SIGV4: a request is valid for five minutes around its time.
    if !stamp.starts_with(date) || age.abs() > 300 {
        return Err(("RequestExpired", format!("Signature expired: {stamp} is {age} s old")));
    }
    if credentials.session_token.as_deref() != request.header("x-amz-security-token") {
        return Err(("InvalidClientTokenId", "The security token included in the request is invalid".into()));
    }
    // SIGV4: host and every x-amz-* header must be signed, the list sorted.
    let names: Vec<&str> = signed.split(';').collect();
    let must = |name: &str| name == "host" || name.starts_with("x-amz-");
    if let Some((name, _)) =
        request.headers.iter().find(|(name, _)| must(name) && !names.contains(&name.as_str()))
    {
        return Err((
            "SignatureDoesNotMatch",
            format!("'{name}' must be a 'SignedHeader' in the AWS Authorization"),
        ));
    }
    if !names.is_sorted() || !names.contains(&"host") {
        return Err(("SignatureDoesNotMatch", "SignedHeaders".into()));
    }
    let mut headers = String::new();
    for name in &names {
        let value =
            request.header(name).ok_or_else(|| incomplete(&format!("{name} is signed but missing")))?;
        let words: Vec<&str> = value.split_whitespace().collect();
        let _ = writeln!(headers, "{name}:{}", words.join(" "));
    }
    let mut query: Vec<String> = request
        .query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") })
        .collect();
    query.sort();
    let canonical = format!(
        "{}\n{}\n{}\n{headers}\n{signed}\n{}",
        request.method,
        request.path,
        query.join("&"),
        sha256(&request.body)
    );
    let scope = format!("{date}/{region}/route53/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let mut key = format!("AWS4{}", credentials.secret).into_bytes();
    for word in [date, region, "route53", "aws4_request"] {
        key = sign(&key, word);
    }
    if hex(&sign(&key, &text)) != given {
        let message = "The request signature we calculated does not match the signature you provided";
        return Err(("SignatureDoesNotMatch", message.into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_counted_from_1970() {
        assert_eq!(seconds("19700101T000000Z"), Some(0));
        assert_eq!(seconds("20000301T000001Z"), Some(951_868_801));
        assert_eq!(seconds("20150830T123600Z"), Some(1_440_938_160));
    }

    /// The signing key's example of SIGV4's predecessor page ("Examples of how to derive a signing key").
    #[test]
    fn the_signing_key_is_derived_as_documented() {
        let mut key = b"AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_vec();
        for word in ["20150830", "us-east-1", "iam", "aws4_request"] {
            key = sign(&key, word);
        }
        assert_eq!(hex(&key), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
    }
}
