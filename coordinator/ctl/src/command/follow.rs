//! Following an operation to its end. Losing a coordinator on the way is part of what is followed, not an error.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use regent_proto::v1::{OperationReport, OperationRequest, OperationState};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    Failure,
    client::Client,
    output::{Output, duration, report, step_line},
};

pub(super) const POLL: Duration = Duration::from_millis(300);

/// Polls until the operation has ended, printing each finished step to standard error, then prints its report.
pub(super) async fn to_its_end(
    client: &Client,
    output: &Output,
    cluster: &str,
    operation: u64,
    patience: Duration,
) -> Result<(), Failure> {
    let request = OperationRequest { cluster: cluster.to_owned(), id: operation };
    let progress = Progress::new();
    let give_up = Instant::now() + patience;
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = 0;
    loop {
        ticks.tick().await;
        let last;
        match client.call(async |operators| operators.get_operation(request.clone()).await).await {
            Ok(operation) => {
                said = progress.say_steps(&operation, said);
                let summary = operation.summary.clone().unwrap_or_default();
                let reason = summary.reason.clone().unwrap_or_default();
                match summary.state() {
                    OperationState::Done => {
                        progress.clear();
                        return output.print(&operation, report);
                    }
                    OperationState::Aborted | OperationState::RolledBack => {
                        progress.clear();
                        output.print(&operation, report)?;
                        let (id, state) = (summary.id, summary.state().to_string().replace('_', " "));
                        return Err(Failure::Refused(format!("operation {id} was {state}: {reason}")));
                    }
                    _ => {
                        last = match reason.as_str() {
                            "" => format!("in step {}", summary.step),
                            reason => format!("in step {}, waiting: {reason}", summary.step),
                        };
                        progress.now(&format!("{last} ({})", duration(summary.elapsed_ms)));
                    }
                }
            }
            Err(failure @ Failure::Unreachable(_)) => {
                let text = failure.to_string();
                last = text.lines().next().unwrap_or_default().to_owned();
                progress.now(&last);
            }
            Err(failure) => return Err(failure),
        }
        if Instant::now() >= give_up {
            progress.clear();
            let patience = humantime::format_duration(patience);
            return Err(Failure::Waiting(format!(
                "operation {operation} of {cluster} has not ended after {patience} and goes on: {last}; see `regentctl \
                 history {cluster} {operation}`"
            )));
        }
    }
}

/// A spinner on a terminal; elsewhere only the finished steps are written.
struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(
                ProgressStyle::with_template("{spinner} {wide_msg}").expect("the template is a constant"),
            );
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar }
    }

    fn now(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// Says the finished steps after the first `said`; returns how many have been said now.
    fn say_steps(&self, operation: &OperationReport, said: usize) -> usize {
        let finished = operation.steps.iter().take_while(|step| step.elapsed_ms.is_some()).count();
        for step in operation.steps.iter().take(finished).skip(said) {
            match &self.bar {
                Some(bar) => bar.println(step_line(step)),
                None => eprintln!("{}", step_line(step)),
            }
        }
        finished.max(said)
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
