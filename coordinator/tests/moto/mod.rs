//! The wire shape against somebody else's idea of it: moto's server, in a virtual environment under the target folder.
//!
//! Moto accepts a DELETE of a value that was there earlier and answers INSYNC at once, so it says nothing about the
//! compare-and-swap: only that requests are understood and answers are read. Needs python3 and pip; says SKIPPED loudly
//! when it cannot be had.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use regent_coordinator::{
    config::ChangeMode,
    dns::{DnsError, DnsProvider, Ensured},
};
use regent_types::Epoch;
use tempfile::TempDir;

use super::{NAME, ZONE, provider, record, write_credentials};

const MOTO: &str = "moto[server]==5.2.5";

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The `python` of a virtual environment, made when it is missing; or why it cannot be had.
fn moto() -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moto-venv");
    let server = target.join("bin/python");
    let run = |program: &Path, args: &[&str]| {
        let output = Command::new(program)
            .args(args)
            .output()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    };
    if !target.join("complete").exists() {
        std::fs::remove_dir_all(&target).ok();
        run(Path::new("python3"), &["-m", "venv", target.to_str().ok_or("path")?])?;
        run(&target.join("bin/pip"), &["install", "--quiet", "--disable-pip-version-check", MOTO])?;
        std::fs::write(target.join("complete"), MOTO).map_err(|error| error.to_string())?;
    }
    Ok(server)
}

/// Moto's server, with its CDATA sections written as text, as Route 53 does: the SDK's XML reader passes over CDATA.
const SERVE: &str = r#"
import re, sys
from xml.sax.saxutils import escape
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
from werkzeug.wrappers import Response
moto = DomainDispatcherApplication(create_backend_app)
def plain(environ, start_response):
    answer = Response.from_app(moto, environ)
    text = answer.get_data(as_text=True)
    answer.set_data(re.sub(r"<!\[CDATA\[(.*?)\]\]>", lambda found: escape(found[1]), text, flags=re.S))
    return answer(environ, start_response)
run_simple("127.0.0.1", int(sys.argv[1]), plain, threaded=True)
"#;

/// Makes a zone with moto's own client library; repeats until the server answers.
const MAKE_ZONE: &str = r#"
import sys, time, boto3
client = boto3.client("route53", endpoint_url=sys.argv[1], region_name="us-east-1",
                      aws_access_key_id="AKIDMOTO", aws_secret_access_key="secret")
deadline = time.time() + 60
while True:
    try:
        zone = client.create_hosted_zone(Name=sys.argv[2], CallerReference="test")
        print(zone["HostedZone"]["Id"].split("/")[-1])
        break
    except Exception as error:
        if time.time() > deadline:
            sys.exit(str(error))
"#;

#[tokio::test]
async fn moto_understands_what_is_asked() {
    let binary = match moto() {
        Ok(binary) => binary,
        Err(why) => {
            eprintln!(
                "SKIPPED: moto's server cannot be had on this machine, so the wire shape was NOT tested: {why}"
            );
            return;
        }
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let child = Command::new(&binary)
        .args(["-c", SERVE, &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Server(child);
    let url = format!("http://127.0.0.1:{port}");
    let made = Command::new(&binary).args(["-c", MAKE_ZONE, &url, ZONE]).output().unwrap();
    assert!(made.status.success(), "no zone: {made:?}");
    let id = String::from_utf8(made.stdout).unwrap().trim().to_owned();

    let dir = TempDir::new().unwrap();
    let credentials = dir.path().join("credentials");
    write_credentials(&credentials, "AKIDMOTO", "secret", None);
    let mode = ChangeMode {
        hosted_zone_id: id,
        weighted: None,
        ttl_s: None,
        endpoint_url: Some(url),
        region: Some("us-east-1".into()),
        profile: None,
        credentials_file: Some(credentials),
        timeout: Duration::from_secs(10),
    };
    let (old, new) = (provider(mode.clone()), provider(mode.clone()));
    assert_eq!(old.observe(NAME).await, Ok(None));
    assert_eq!(old.ensure(NAME, &record(1)).await, Ok(Ensured::Changed));
    assert_eq!(old.ensure(NAME, &record(1)).await, Ok(Ensured::AlreadyThere));
    assert_eq!(new.ensure(NAME, &record(3)).await, Ok(Ensured::Changed));
    // A late change of an older epoch loses here too, by reading.
    assert_eq!(
        old.ensure(NAME, &record(2)).await,
        Err(DnsError::Superseded { found: Epoch(3), wanted: Epoch(2) })
    );
    let seen = new.observe(NAME).await.unwrap().unwrap();
    assert_eq!((seen.address, seen.epoch), (record(3).address, Some(Epoch(3))));
    let elsewhere = provider(ChangeMode { hosted_zone_id: "Z0NOWHERE".into(), ..mode });
    let error = elsewhere.ensure(NAME, &record(4)).await.unwrap_err().to_string();
    assert!(error.contains("NoSuchHostedZone") && error.contains("Z0NOWHERE"), "{error}");
}
