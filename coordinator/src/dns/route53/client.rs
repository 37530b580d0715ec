//! The three calls, and what their errors mean. One try each: whoever calls reads the zone again before the next.
//!
//! Never retries by itself: a repeated batch after a lost answer must be made from what is there then. Never logs a
//! request: the SDK's own traces are switched off by the coordinator's log filter.

use std::{fmt, time::Duration};

use aws_config::{
    BehaviorVersion, Region,
    environment::region::EnvironmentVariableRegionProvider,
    meta::region::RegionProviderChain,
    profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider},
    provider_config::ProviderConfig,
    retry::RetryConfig,
};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_route53::{
    Client,
    config::SharedHttpClient,
    error::{ProvideErrorMetadata, SdkError},
    operation::change_resource_record_sets::ChangeResourceRecordSetsError,
    types::{ChangeBatch, ChangeStatus, ResourceRecordSet},
};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use super::{Pace, records::same_name};
use crate::{clock::Clock, config::ChangeMode};

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// The zone is not what it was when it was read: nothing has changed.
    Lost(String),
    /// Busy, throttled, unanswered: to be tried again after reading.
    Passing(String),
    /// Configuration or permissions: tried again too, but somebody has to do something.
    Standing(String),
    /// The credentials are not there or not accepted: to be tried again with credentials read anew.
    Credentials(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(text) | Self::Passing(text) | Self::Standing(text) | Self::Credentials(text) => {
                out.write_str(text)
            }
        }
    }
}

/// Calls for one hosted zone.
pub struct Calls {
    client: Client,
    /// The provider's name, for messages.
    provider: String,
    zone_id: String,
    profile: Option<String>,
    file: Option<String>,
    timeout: Duration,
    clock: Clock,
    pace: std::sync::Arc<Pace>,
}

impl Calls {
    /// Reads the usual AWS configuration. No call is made, except perhaps to the machine's metadata service.
    pub async fn new(provider: &str, mode: &ChangeMode, clock: Clock, pace: std::sync::Arc<Pace>) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        // Route 53 is global: without any region it is signed for us-east-1. The machine's metadata service is not asked: its
        // region says nothing about Route 53, and off EC2 it costs seconds.
        let mut profile = ProfileFileRegionProvider::builder();
        if let Some(name) = &mode.profile {
            profile = profile.profile_name(name);
        }
        let region = RegionProviderChain::first_try(mode.region.clone().map(Region::new))
            .or_else(EnvironmentVariableRegionProvider::new())
            .or_else(profile.build())
            .or_else("us-east-1")
            .region()
            .await;
        let own = own_credentials(mode, http.clone(), region.clone(), &clock);
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .time_source(clock.clone())
            .sleep_impl(clock.clone())
            .region(region)
            .retry_config(RetryConfig::disabled());
        if let Some(profile) = &mode.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(own) = own {
            loader = loader.credentials_provider(own);
        }
        if let Some(url) = &mode.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        let client = Client::new(&loader.load().await);
        Self {
            client,
            provider: provider.to_owned(),
            zone_id: mode.hosted_zone_id.clone(),
            profile: mode.profile.clone(),
            file: mode.credentials_file.as_ref().map(|path| path.display().to_string()),
            timeout: mode.timeout,
            clock,
            pace,
        }
    }

    /// All records of a name. Reads are strongly consistent with changes, PENDING ones included (API reference,
    /// ListResourceRecordSets).
    pub async fn list(&self, name: &str) -> Result<Vec<ResourceRecordSet>, CallError> {
        let mut found = Vec::new();
        let mut start = (format!("{name}."), None, None);
        loop {
            let (start_name, start_type, start_identifier) = start;
            let call = self
                .client
                .list_resource_record_sets()
                .hosted_zone_id(&self.zone_id)
                .start_record_name(start_name)
                .set_start_record_type(start_type)
                .set_start_record_identifier(start_identifier)
                .max_items(100);
            let page = self.within("ListResourceRecordSets", call.send()).await?;
            let more = page.is_truncated();
            let mut beyond = false;
            for set in page.resource_record_sets {
                beyond |= !same_name(set.name(), name);
                if !beyond {
                    found.push(set);
                }
            }
            match page.next_record_name {
                Some(next) if more && !beyond => {
                    start = (next, page.next_record_type, page.next_record_identifier);
                }
                _ => return Ok(found),
            }
        }
    }

    /// Makes all changes or none; returns the change's id.
    pub async fn change(&self, batch: ChangeBatch) -> Result<String, CallError> {
        let call = self
            .client
            .change_resource_record_sets()
            .hosted_zone_id(&self.zone_id)
            .change_batch(batch)
            .send();
        self.pace.wait().await;
        match self.clock.within(self.timeout, call).await {
            None => Err(self.unanswered("ChangeResourceRecordSets")),
            Some(Ok(output)) => match output.change_info {
                Some(info) => Ok(info.id),
                None => Err(CallError::Passing("ChangeResourceRecordSets names no change".into())),
            },
            Some(Err(error)) => {
                if let Some(ChangeResourceRecordSetsError::InvalidChangeBatch(lost)) =
                    error.as_service_error()
                {
                    let mut said: Vec<&str> = lost.messages().iter().map(String::as_str).collect();
                    said.extend(lost.message());
                    let problem = format!("route53 refuses the change batch: {}", said.join("; "));
                    return Err(CallError::Lost(problem));
                }
                let body = error.raw_response().and_then(|response| response.body().bytes());
                if let Some(said) = body.and_then(|body| bare_refusal(&String::from_utf8_lossy(body))) {
                    return Err(CallError::Lost(format!("route53 refuses the change batch: {said}")));
                }
                Err(self.explain("ChangeResourceRecordSets", &error))
            }
        }
    }

    /// Whether every name server of the zone has the change.
    pub async fn in_sync(&self, change: &str) -> Result<bool, CallError> {
        let output = self.within("GetChange", self.client.get_change().id(change).send()).await?;
        Ok(output.change_info.is_some_and(|info| *info.status() == ChangeStatus::Insync))
    }

    async fn within<T, E>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, SdkError<E>>>,
    ) -> Result<T, CallError>
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        self.pace.wait().await;
        match self.clock.within(self.timeout, call).await {
            Some(result) => result.map_err(|error| self.explain(what, &error)),
            None => Err(self.unanswered(what)),
        }
    }

    fn unanswered(&self, what: &str) -> CallError {
        let limit = humantime::format_duration(self.timeout);
        CallError::Passing(format!(
            "route53 has not answered {what} within {limit} (route53.{}.timeout)",
            self.provider
        ))
    }

    /// Codes: API reference, "Common Errors" and each action's "Errors"; Developer Guide, "Quotas".
    fn explain<E>(&self, what: &str, error: &SdkError<E>) -> CallError
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let field = |key: &str| format!("route53.{}.{key}", self.provider);
        let Some(service) = error.as_service_error() else {
            return match error {
                SdkError::ConstructionFailure(_) => CallError::Standing(format!("{what}: {}", causes(error))),
                // Sent or not, answered or not: unknown, so read again.
                _ => {
                    let why = causes(error);
                    if why.contains("credentials") {
                        let key = |key: &str, value: &Option<String>| {
                            value.as_ref().map(|value| format!("{} = {value:?}", field(key)))
                        };
                        let given = [key("credentials_file", &self.file), key("profile", &self.profile)];
                        let given: Vec<String> = given.into_iter().flatten().collect();
                        let from = if given.is_empty() {
                            "the usual AWS places".to_owned()
                        } else {
                            given.join(", ")
                        };
                        return CallError::Credentials(format!(
                            "no AWS credentials for {what}, looked for in {from}: {why}"
                        ));
                    }
                    CallError::Passing(format!("route53 cannot be reached for {what}: {why}"))
                }
            };
        };
        let code = service.code().unwrap_or("no code");
        let said = service.message().unwrap_or("no message");
        match code {
            "Throttling" | "ThrottlingException" | "RequestLimitExceeded" | "TooManyRequestsException" => {
                self.pace.throttled();
                CallError::Passing(format!(
                    "route53 throttles {what} ({code}: {said}); an account has 5 requests a second"
                ))
            }
            "PriorRequestNotComplete" => {
                CallError::Passing(format!("route53 is still busy with an earlier change ({code}: {said})"))
            }
            "NoSuchHostedZone" => CallError::Standing(format!(
                "{} = {:?} does not exist, or is not this account's ({code}: {said})",
                field("hosted_zone_id"),
                self.zone_id
            )),
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" | "OptInRequired" => {
                CallError::Standing(format!(
                    "the AWS credentials may not call route53:{what} on {} = {:?} ({code}: {said})",
                    field("hosted_zone_id"),
                    self.zone_id
                ))
            }
            "InvalidClientTokenId"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "MissingAuthenticationToken"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "RequestExpired"
            | "UnrecognizedClientException" => CallError::Credentials(format!(
                "route53 does not accept the AWS credentials, or this machine's clock is wrong, for {what} ({code}: {said})"
            )),
            "InvalidInput" | "ValidationError" => {
                CallError::Standing(format!("route53 does not accept what {what} asks ({code}: {said})"))
            }
            _ => CallError::Passing(format!("route53 refuses {what} ({code}: {said})")),
        }
    }
}

/// The messages of an `InvalidChangeBatch` that is the document itself and not inside an `ErrorResponse`: Route 53 documents
/// this form too, and the SDK sees an error without a code in it.
fn bare_refusal(body: &str) -> Option<String> {
    let (_, rest) = body.split_once("<InvalidChangeBatch")?;
    let messages = rest.split("<Message>").skip(1).filter_map(|part| part.split_once("</Message>"));
    let said: Vec<String> = messages
        .map(|(text, _)| {
            text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
        })
        .collect();
    Some(said.join("; "))
}

/// Named by the configuration, so nothing else is looked at: otherwise a variable that is left over in the environment
/// would win over what the operator wrote down.
fn own_credentials(
    mode: &ChangeMode,
    http: SharedHttpClient,
    region: Option<Region>,
    clock: &Clock,
) -> Option<ProfileFileCredentialsProvider> {
    if mode.profile.is_none() && mode.credentials_file.is_none() {
        return None;
    }
    let context = ProviderConfig::without_region()
        .with_region(region)
        .with_http_client(http)
        .with_time_source(clock.clone())
        .with_sleep_impl(clock.clone());
    let mut builder = ProfileFileCredentialsProvider::builder().configure(&context);
    if let Some(profile) = &mode.profile {
        builder = builder.profile_name(profile);
    }
    if let Some(file) = &mode.credentials_file {
        let files = EnvConfigFiles::builder()
            .include_default_config_file(true)
            .with_file(EnvConfigFileKind::Credentials, file)
            .build();
        builder = builder.profile_files(files);
    }
    Some(builder.build())
}

/// The error and its causes, none of which holds a secret: credentials never become part of an SDK error.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
