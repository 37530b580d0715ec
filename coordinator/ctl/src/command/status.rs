//! `regentctl status`.

use std::io::{self, IsTerminal};

use regent_proto::v1::StatusRequest;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    Failure,
    cli::{Format, StatusArgs},
    client::Client,
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
    let mut ticks = interval(args.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let clear = output.format == Format::Table && io::stdout().is_terminal();
    loop {
        ticks.tick().await;
        // While the leader is lost the page says so and goes on: that is what one watches for.
        match ask().await {
            Ok(reply) => {
                if clear {
                    output.text("\x1b[2J\x1b[H")?;
                }
                match output.format {
                    Format::Json => output.print_line(&reply, status)?,
                    Format::Table => output.print(&reply, status)?,
                }
            }
            Err(failure @ Failure::Unreachable(_)) => eprintln!("regentctl: {failure}"),
            Err(failure) => return Err(failure),
        }
    }
}
