//! Who calls, and whether they may: the one place where identities and roles are checked (DESIGN section 10).
//!
//! The certificate's URI SAN is the identity. A coordinator may speak *on behalf of* somebody whose call or session it
//! relays, named in [`ON_BEHALF_OF`]; from anyone else that header is refused. In plain text (loopback only) everybody
//! is believed.
//!
//! A certificate outlives its owner's removal: whom the replicated state holds as removed is refused, whatever its certificate
//! says ([`removed`]). A removed coordinator may do nothing more. A removed member's agent may open a session, to be told that
//! it is removed and stop PostgreSQL; nothing else that it says is taken. A state that lags behind errs towards the old
//! power, for as long as it lags: an id or a removal is never undone by what it lacks.

use std::{str::FromStr, sync::Arc};

use regent_core::{Standing, State};
use regent_pki::{Identity, identity_of};
use regent_raft::PeerNode;
use regent_types::{ClusterName, MemberName};
use tonic::{Request, Status};

/// Metadata key of a relayed caller.
pub const ON_BEHALF_OF: &str = "regent-on-behalf-of";
/// Who an operator is when nobody proves anything.
const PLAINTEXT_OPERATOR: &str = "regent://operator/plaintext";

/// A caller whose identity was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who, relayed or not. `None` in plain text without a relay: then whatever the message says is believed.
    pub identity: Option<Identity>,
    /// The call came through another coordinator.
    pub relayed: bool,
}

/// Why an identity counts for nothing any more, if it does not.
pub fn removed(state: &State, identity: &Identity) -> Option<String> {
    match identity {
        Identity::Coordinator(id) => {
            let known = state.group.coordinators.get(id)?;
            (known.standing == Standing::Removed).then(|| {
                format!("coordinator {id} was removed from the group (version {})", state.group.version)
            })
        }
        Identity::Agent { cluster, member } => {
            let removed = state.clusters.get(cluster)?.membership.removed.get(member)?;
            Some(format!(
                "member {member} was removed from cluster {cluster} with list {} ({})",
                removed.version, removed.by
            ))
        }
        Identity::Operator(_) | Identity::Viewer(_) => None,
    }
}

/// Looks an identity up in the replicated state.
type Removed = dyn Fn(&Identity) -> Option<String> + Send + Sync;

/// Checks callers.
#[derive(Clone)]
pub struct Gate {
    plaintext: bool,
    removed: Arc<Removed>,
}

impl Gate {
    /// `plaintext`: nobody has a certificate. `removed`: why an identity counts for nothing any more.
    pub fn new(
        plaintext: bool,
        removed: impl Fn(&Identity) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self { plaintext, removed: Arc::new(removed) }
    }

    fn certificate<T>(&self, request: &Request<T>) -> Result<Option<Identity>, Status> {
        if self.plaintext {
            return Ok(None);
        }
        let certificates = request.peer_certs();
        let Some(certificate) = certificates.as_ref().and_then(|all| all.first()) else {
            return Err(Status::unauthenticated("a client certificate is required"));
        };
        let identity = identity_of(certificate.as_ref())
            .map_err(|error| Status::unauthenticated(format!("the certificate: {error}")))?;
        if matches!(identity, Identity::Coordinator(_)) {
            self.in_force(&identity)?;
        }
        Ok(Some(identity))
    }

    /// Refuses an identity that was removed.
    fn in_force(&self, identity: &Identity) -> Result<(), Status> {
        match (self.removed)(identity) {
            Some(why) => Err(Status::permission_denied(format!("{identity} counts for nothing here: {why}"))),
            None => Ok(()),
        }
    }

    /// What a member says beyond its heartbeats: nothing of it is taken once it is removed.
    pub fn member(&self, cluster: &ClusterName, member: &MemberName) -> Result<(), Status> {
        self.in_force(&Identity::Agent { cluster: cluster.clone(), member: member.clone() })
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let certificate = self.certificate(request)?;
        let Some(named) = request.metadata().get(ON_BEHALF_OF) else {
            return Ok(Caller { identity: certificate, relayed: false });
        };
        if let Some(identity) = certificate
            && !matches!(identity, Identity::Coordinator(_))
        {
            let text = format!("{identity} may not speak on behalf of others: only a coordinator may");
            return Err(Status::permission_denied(text));
        }
        let bad =
            |error: &dyn std::fmt::Display| Status::invalid_argument(format!("{ON_BEHALF_OF}: {error}"));
        let text = named.to_str().map_err(|error| bad(&error))?;
        let identity = Identity::from_str(text).map_err(|error| bad(&error))?;
        Ok(Caller { identity: Some(identity), relayed: true })
    }

    /// An agent, or a coordinator that relays one.
    pub fn agent<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let caller = self.caller(request)?;
        match &caller.identity {
            None | Some(Identity::Agent { .. }) => Ok(caller),
            Some(other) => Err(denied(other, "open an agent's session", "an agent's certificate")),
        }
    }

    /// Somebody who may look: operators and viewers.
    pub fn viewer<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let caller = self.caller(request)?;
        match &caller.identity {
            None | Some(Identity::Operator(_) | Identity::Viewer(_)) => Ok(caller),
            Some(other) => Err(denied(other, "read the status", "an operator's or viewer's certificate")),
        }
    }

    /// Somebody who may change things.
    pub fn operator<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let caller = self.caller(request)?;
        match &caller.identity {
            None | Some(Identity::Operator(_)) => Ok(caller),
            Some(other) => Err(denied(other, "change anything", "an operator's certificate")),
        }
    }

    /// Another coordinator; its id, unless in plain text.
    pub fn peer<T>(&self, request: &Request<T>) -> Result<Option<u64>, Status> {
        match self.certificate(request)? {
            None => Ok(None),
            Some(Identity::Coordinator(id)) => Ok(Some(id.0)),
            Some(other) => Err(denied(&other, "speak for a coordinator", "a coordinator's certificate")),
        }
    }

    /// The interceptor before Raft: proves the sender to it.
    pub fn raft(&self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(id) = self.peer(&request)? {
            request.extensions_mut().insert(PeerNode(id));
        }
        Ok(request)
    }
}

fn denied(identity: &Identity, what: &str, needs: &str) -> Status {
    Status::permission_denied(format!("{identity} may not {what}: that needs {needs}"))
}

impl Caller {
    /// An agent speaks for its own member only.
    pub fn speaks_for(&self, cluster: &ClusterName, member: &MemberName) -> Result<(), Status> {
        match &self.identity {
            None => Ok(()),
            Some(Identity::Agent { cluster: c, member: m }) if c == cluster && m == member => Ok(()),
            Some(other) => {
                let text = format!("{other} may not speak for member {member} of cluster {cluster}");
                Err(Status::permission_denied(text))
            }
        }
    }

    /// Who asks, for the record and for a relay.
    pub fn actor(&self) -> String {
        self.identity.as_ref().map_or_else(|| PLAINTEXT_OPERATOR.to_owned(), Identity::to_string)
    }
}

/// `request` as relayed for `actor`.
pub fn on_behalf<T>(message: T, actor: &str) -> Result<Request<T>, Status> {
    let mut request = Request::new(message);
    let value = actor.parse().map_err(|_| Status::internal(format!("{actor:?} is no metadata value")))?;
    request.metadata_mut().insert(ON_BEHALF_OF, value);
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_believes_and_a_relay_names_whom_it_speaks_for() {
        let gate = Gate::new(true, |_| None);
        let direct = gate.operator(&Request::new(())).unwrap();
        assert_eq!((direct.actor().as_str(), direct.relayed), (PLAINTEXT_OPERATOR, false));
        let relayed = gate.operator(&on_behalf((), "regent://operator/alice").unwrap()).unwrap();
        assert_eq!((relayed.actor().as_str(), relayed.relayed), ("regent://operator/alice", true));
        let viewer = gate.operator(&on_behalf((), "regent://viewer/grafana").unwrap()).unwrap_err();
        assert_eq!(viewer.code(), tonic::Code::PermissionDenied);
        assert!(viewer.message().contains("regent://viewer/grafana"), "{viewer}");
        let malformed = gate.viewer(&on_behalf((), "alice").unwrap()).unwrap_err();
        assert_eq!(malformed.code(), tonic::Code::InvalidArgument);
        let agent = gate.viewer(&on_behalf((), "regent://agent/c/m").unwrap()).unwrap_err();
        assert_eq!(agent.code(), tonic::Code::PermissionDenied);
    }

    #[test]
    fn without_a_certificate_nobody_passes_when_tls_is_on() {
        let gate = Gate::new(false, |_| None);
        assert_eq!(gate.agent(&Request::new(())).unwrap_err().code(), tonic::Code::Unauthenticated);
        assert_eq!(gate.raft(Request::new(())).unwrap_err().code(), tonic::Code::Unauthenticated);
    }

    #[test]
    fn who_was_removed_counts_for_nothing() {
        let removed =
            |identity: &Identity| (identity.to_string() == "regent://agent/c/m").then(|| "list 3".to_owned());
        let gate = Gate::new(true, removed);
        let (c, m) = (ClusterName::new("c").unwrap(), MemberName::new("m").unwrap());
        let refused = gate.member(&c, &m).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        assert!(
            refused.message().contains("regent://agent/c/m counts for nothing here: list 3"),
            "{refused}"
        );
        assert!(gate.member(&c, &MemberName::new("n").unwrap()).is_ok());
        let mut state = State::default();
        let id = regent_types::CoordinatorId(4);
        let one = regent_core::Coordinator {
            address: "a:1".into(),
            region: regent_types::Region::new("r").unwrap(),
            standing: Standing::Leaving,
        };
        state.group.coordinators.insert(id, one);
        assert_eq!(super::removed(&state, &Identity::Coordinator(id)), None, "it votes until it has left");
        state.group.coordinators.get_mut(&id).unwrap().standing = Standing::Removed;
        assert!(
            super::removed(&state, &Identity::Coordinator(id)).unwrap().contains("coordinator 4 was removed")
        );
    }

    #[test]
    fn an_agent_speaks_for_its_own_member_only() {
        let identity = Some("regent://agent/c/m".parse().unwrap());
        let caller = Caller { identity, relayed: false };
        let (c, m) = (ClusterName::new("c").unwrap(), MemberName::new("m").unwrap());
        assert!(caller.speaks_for(&c, &m).is_ok());
        let other = caller.speaks_for(&c, &MemberName::new("n").unwrap()).unwrap_err();
        assert!(other.message().contains("regent://agent/c/m may not speak for member n"), "{other}");
        assert!(caller.speaks_for(&ClusterName::new("d").unwrap(), &m).is_err());
    }
}
