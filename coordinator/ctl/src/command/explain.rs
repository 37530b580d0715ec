//! `regentctl explain`.

use regent_proto::v1::ExplainRequest;

use crate::{
    Failure,
    cli::ExplainArgs,
    client::Client,
    output::{Output, explain},
};

pub(super) async fn run(client: &Client, output: &Output, args: ExplainArgs) -> Result<(), Failure> {
    let request = ExplainRequest { cluster: args.cluster.to_string() };
    let reply = client.call(async |operators| operators.explain(request.clone()).await).await?;
    output.print(&reply, explain)
}
