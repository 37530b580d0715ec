//! The live page in a pseudo-terminal (script(1) makes one), and the manual pages.

use std::{process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::{Instant, timeout_at},
};

use crate::{
    samples::world,
    support::{Fake, ctl},
};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_live_page_runs_in_a_terminal_and_q_ends_it() {
    let fake = Fake::start(world()).await;
    for colour in ["always", "never"] {
        let command = format!(
            "stty cols 80 rows 24; exec {} --plaintext --endpoint {} --color {colour} status --watch --interval 100ms",
            env!("CARGO_BIN_EXE_regentctl"),
            fake.address
        );
        let mut child = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("script(1) of util-linux is installed");
        let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let deadline = Instant::now() + PATIENCE;
        let (mut shown, mut buffer) = (String::new(), vec![0; 4096]);
        let mut pressed = false;
        loop {
            let read = timeout_at(deadline, screen.read(&mut buffer)).await;
            let length = read.unwrap_or_else(|_| panic!("it does not end: {shown:?}")).unwrap_or(0);
            if length == 0 {
                break;
            }
            shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
            if !pressed && shown.contains("gravl.db.regent.internal") {
                pressed = true;
                keyboard.write_all(b"q").await.unwrap();
                keyboard.flush().await.unwrap();
            }
        }
        let status = timeout_at(deadline, child.wait()).await.unwrap().unwrap();
        assert!(pressed && status.success(), "{status}: {shown:?}");
        // The other screen is entered and left again, and the cursor comes back.
        assert!(shown.contains("\x1b[?1049h") && shown.contains("\x1b[?1049l"), "{shown:?}");
        assert!(shown.contains("\x1b[?25h"), "{shown:?}");
        assert_eq!(shown.contains("\x1b[38;5;"), colour == "always", "{shown:?}");
    }
}

#[tokio::test]
async fn without_a_terminal_the_watch_is_plain_text() {
    let fake = Fake::start(world()).await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_regentctl"))
        .args([
            "--plaintext",
            "--endpoint",
            &fake.address.to_string(),
            "status",
            "--watch",
            "--interval",
            "50ms",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut screen = child.stdout.take().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let (mut shown, mut buffer) = (String::new(), vec![0; 4096]);
    while shown.matches("CLUSTER gravl").count() < 2 {
        let length = timeout_at(deadline, screen.read(&mut buffer)).await.expect("it is silent").unwrap();
        assert!(length > 0, "it has ended: {shown}");
        shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    assert!(!shown.contains('\x1b'), "{shown:?}");
    child.kill().await.unwrap();
}

#[tokio::test]
async fn there_is_a_manual_page_for_every_command() {
    let whole = ctl(&["man"]).await.expect(0).out;
    assert!(whole.starts_with(".ie") || whole.contains(".TH regentctl 1"), "{whole}");
    assert!(whole.contains("failover") && whole.contains("Exit codes"), "{whole}");
    let verb = ctl(&["man", "pki", "issue"]).await.expect(0).out;
    assert!(verb.contains("identities") || verb.contains("IDENTITIES"), "{verb}");
    assert!(verb.contains("Examples"), "{verb}");
    ctl(&["man", "nonsense"]).await.expect(2).says("nonsense");
    let dir = tempfile::TempDir::new().unwrap();
    let folder = dir.path().join("man1");
    ctl(&["man", "--dir", folder.to_str().unwrap()]).await.expect(0);
    for page in ["regentctl.1", "regentctl-failover.1", "regentctl-pki-issue.1"] {
        assert!(folder.join(page).exists(), "{page}");
    }
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    ctl(&["man", "--dir", file.to_str().unwrap()]).await.expect(2).says("--dir");
}
