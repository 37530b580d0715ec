//! `regentctl history`.

use regent_proto::v1::{HistoryRequest, OperationRequest};

use crate::{
    Failure,
    cli::HistoryArgs,
    client::Client,
    output::{Output, history, report},
};

pub(super) async fn run(client: &Client, output: &Output, args: HistoryArgs) -> Result<(), Failure> {
    let cluster = args.cluster.to_string();
    match args.operation {
        Some(id) => {
            let request = OperationRequest { cluster, id };
            let reply = client.call(async |operators| operators.get_operation(request.clone()).await).await?;
            output.print(&reply, report)
        }
        None => {
            let request = HistoryRequest { cluster, limit: args.limit };
            let reply = client.call(async |operators| operators.get_history(request.clone()).await).await?;
            output.print(&reply, history)
        }
    }
}
