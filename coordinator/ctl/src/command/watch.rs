//! `regentctl watch`: each event once, in order, across the death of the coordinator that sends them.

use std::time::Duration;

use regent_proto::v1::WatchRequest;
use tokio::time::{Instant, sleep};

use crate::{
    Failure,
    cli::WatchArgs,
    client::Client,
    output::{Output, event_line},
};

/// For how long a broken stream is taken up elsewhere before giving up.
const RESUME_FOR: Duration = Duration::from_secs(60);
const RESUME_PAUSE: Duration = Duration::from_millis(300);

pub(super) async fn run(client: &Client, output: &Output, args: WatchArgs) -> Result<(), Failure> {
    let mut next = args.from;
    let mut left = args.count;
    let mut resume_until: Option<Instant> = None;
    while left != Some(0) {
        let request =
            WatchRequest { from_sequence: next, cluster: args.cluster.as_ref().map(ToString::to_string) };
        let opened = client.call(async |operators| operators.watch(request.clone()).await).await;
        let mut events = match opened {
            Ok(events) => events,
            // At first the address is probably wrong; later a coordinator has died and another one takes over.
            Err(failure @ Failure::Unreachable(_)) => {
                if resume_until.is_none_or(|until| Instant::now() > until) {
                    return Err(failure);
                }
                sleep(RESUME_PAUSE).await;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        while left != Some(0) {
            match events.message().await {
                Ok(Some(event)) => {
                    // A resumed stream must not repeat what was printed.
                    if event.sequence < next {
                        continue;
                    }
                    next = event.sequence.saturating_add(1);
                    left = left.map(|left| left - 1);
                    output.print_line(&event, event_line)?;
                }
                Ok(None) => break,
                Err(status) => {
                    if let Some(failure) = crate::failure::final_answer(&status) {
                        return Err(failure);
                    }
                    break;
                }
            }
        }
        if left != Some(0) {
            client.rotate();
            resume_until = Some(Instant::now() + RESUME_FOR);
            sleep(RESUME_PAUSE).await;
        }
    }
    Ok(())
}
