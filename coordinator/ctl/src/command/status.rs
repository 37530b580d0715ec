//! `regentctl status`: once, as a stream of plain text, or as a page on a terminal.

use std::io::{self, IsTerminal};

use regent_proto::v1::StatusRequest;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    Failure,
    cli::{Format, StatusArgs},
    client::Client,
    live,
    output::{Output, status},
};

pub(super) async fn run(client: &Client, output: &Output, args: StatusArgs) -> Result<(), Failure> {
    let request = StatusRequest { cluster: args.cluster.as_ref().map(ToString::to_string) };
    let ask = async || client.call(async |operators| operators.get_status(request.clone()).await).await;
    if !args.watch {
        return output.print(&ask().await?, status);
    }
    if args.interval.is_zero() {
        return Err(Failure::Usage("interval 0s: use more than 0s".to_owned()));
    }
    // A page for people; for anything else, or without a keyboard, plain text again and again.
    if output.format == Format::Table && io::stdout().is_terminal() && io::stdin().is_terminal() {
        return live::run(client, request.cluster.clone(), args.interval, output.paint.is_on()).await;
    }
    let mut ticks = interval(args.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // While the leader is lost the page says so and goes on: that is what one watches for.
        match ask().await {
            Ok(reply) => match output.format {
                Format::Json => output.print_line(&reply, status)?,
                Format::Table => output.print(&reply, status)?,
            },
            Err(failure @ Failure::Unreachable(_)) => eprintln!("regentctl: {failure}"),
            Err(failure) => return Err(failure),
        }
    }
}
