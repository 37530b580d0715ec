//! Fresh facts for the planner.

use regent_agent_core::{DataView, Facts, Worked};
use regent_types::{DataForm, PostgresState};

use crate::{
    app::App,
    clock::boottime_ns,
    data,
    guard::{GuardError, run_state, view},
    postgres::probe::Prober,
};

/// What a fence needs: the guard alone. It must not wait for a disk or a server that has stopped answering.
pub async fn gather_for_fence(app: &App, worked: &Worked) -> Result<Facts, GuardError> {
    let status = app.guard.status().await?;
    let data = app.observed().data.clone().unwrap_or(DataView {
        form: DataForm::Unusable,
        system_id: None,
        timeline: None,
        checkpoint_lsn: None,
        clean: false,
        upstream: None,
        switch_lsn: None,
        archive: false,
    });
    Ok(Facts {
        member: app.config.member.clone(),
        now_ns: boottime_ns(),
        guard: view(&status),
        data,
        server: None,
        agent: app.state.get(),
        worked: worked.clone(),
        archive: app.config.restore_command.is_some(),
    })
}

/// Looks at everything now.
pub async fn gather(app: &App, prober: &mut Prober, worked: &mut Worked) -> Result<Facts, GuardError> {
    let status = app.guard.status().await?;
    app.observed().guard = Some((status.clone(), boottime_ns()));
    let running = matches!(run_state(status.postgres), PostgresState::Standby | PostgresState::Primary);
    let agent = app.state.get();
    // A look at files of a data directory: small reads, but of a disk that may be dead.
    let (dir, state) = (app.config.data_dir.clone(), agent.clone());
    let data =
        tokio::task::spawn_blocking(move || data::look(&dir, &state)).await.expect("look does not panic");
    let server = if running {
        let looked = prober.look(&app.config, app.config.probe_timeout).await;
        looked.ok().map(|sample| {
            let mut server = sample.server;
            app.recall_timeline(&mut server);
            server
        })
    } else {
        None
    };
    let now_ns = boottime_ns();
    worked.observe(server.as_ref(), now_ns);
    Ok(Facts {
        member: app.config.member.clone(),
        now_ns,
        guard: view(&status),
        data,
        server,
        agent,
        worked: worked.clone(),
        archive: app.config.restore_command.is_some(),
    })
}
