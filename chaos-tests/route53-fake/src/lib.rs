//! A strict double of Amazon Route 53 for tests: an HTTP endpoint that checks signatures and keeps one hosted zone, and a
//! DNS server that shows what is INSYNC.
//!
//! Strict means: where AWS documents a refusal, this refuses; each rule cites the page that it copies (rules without a
//! page say what was seen instead). It never guesses a client's intention. Short names for the pages:
//!
//! - CRRS: <https://docs.aws.amazon.com/Route53/latest/APIReference/API_ChangeResourceRecordSets.html>
//! - RRS: <https://docs.aws.amazon.com/Route53/latest/APIReference/API_ResourceRecordSet.html>
//! - LRRS: <https://docs.aws.amazon.com/Route53/latest/APIReference/API_ListResourceRecordSets.html>
//! - GC: <https://docs.aws.amazon.com/Route53/latest/APIReference/API_GetChange.html>
//! - QUOTAS: <https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/DNSLimitations.html>
//! - FORMAT: <https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/DomainNameFormat.html>
//! - TYPES: <https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/ResourceRecordTypes.html>
//! - SIGV4: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>
//! - ERRORS: <https://docs.aws.amazon.com/Route53/latest/APIReference/CommonErrors.html>

mod dns;
mod http;
mod server;
mod signature;
mod xml;
mod zone;

pub use dns::{HealthChecked, NameServer};
pub use server::{Fake, Fault, Options};
pub use zone::{Action, Change, Record, Refusal, Zone};
