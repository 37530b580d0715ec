//! Looks at each provider now and then, so that wrong credentials or a deleted zone are found on a quiet day and not in a
//! failover. Reads only; changes nothing and decides nothing: a metric and a line in the log.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::{config::EMBEDDED, node::Node};

/// Between two looks: three coordinators of one account stay far below Route 53's five requests a second.
const EVERY: Duration = Duration::from_secs(300);

/// Runs for ever.
pub async fn run(node: Arc<Node>) {
    let outside: Vec<_> = node.providers.iter().filter(|(name, _)| *name != EMBEDDED).collect();
    if outside.is_empty() {
        return std::future::pending().await;
    }
    loop {
        for (provider, known) in &outside {
            for name in names(&node, provider) {
                let seen = known.observe(&name).await;
                node.metrics.dns_attempt(provider, seen.is_ok());
                match seen {
                    Ok(seen) => tracing::debug!(provider, name, ?seen, "looked at the DNS provider"),
                    Err(error) => tracing::error!(
                        provider,
                        name,
                        %error,
                        "this node cannot read the DNS provider: a failover that it leads would wait in redirect"
                    ),
                }
            }
        }
        node.clock.sleep(EVERY).await;
    }
}

/// Names that clusters publish there: of the replicated state, or of the configuration before there is one.
fn names(node: &Node, provider: &str) -> BTreeSet<String> {
    let inner = node.shared.lock();
    let replicated = inner.state.clusters.values().map(|cluster| &cluster.config);
    let configured = node.config.clusters.iter().filter(|_| inner.state.clusters.is_empty());
    replicated
        .chain(configured)
        .filter(|config| config.dns_providers.iter().any(|name| name == provider))
        .map(|config| config.dns_name.clone())
        .collect()
}
