//! `regentctl pki`: files only, no coordinator is asked.

use std::path::{Path, PathBuf};

use regent_pki::{Authority, CertificateInfo, Identity, Overwrite, PkiError};
use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    Failure,
    cli::PkiCommand,
    output::{Column, Output, Paint, Table, Tone, date},
};

/// A certificate as `show`, `init` and `issue` print it.
#[derive(Serialize)]
struct Shown {
    file: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
    identity: Option<String>,
    /// Why it has no identity.
    problem: Option<String>,
    is_ca: bool,
    subject: String,
    issuer: String,
    serial: String,
    dns_names: Vec<String>,
    server_auth: bool,
    client_auth: bool,
    not_before: String,
    not_after: String,
    days_left: i64,
}

pub(super) fn run(output: &Output, command: PkiCommand) -> Result<(), Failure> {
    let shown = match command {
        PkiCommand::Init { dir, name, days, force } => {
            Authority::init(&dir, &name, days, overwrite(force)).map_err(|error| Failure::usage(&error))?;
            vec![show(&dir.join("ca.crt"), Some(dir.join("ca.key")))?]
        }
        PkiCommand::Issue { identities, dir, out, days, force } => {
            let out = out.unwrap_or_else(|| dir.clone());
            issue(&identities, &dir, &out, days, overwrite(force))?
        }
        PkiCommand::Show { files } => {
            files.iter().map(|file| show(file, None)).collect::<Result<Vec<_>, _>>()?
        }
    };
    output.print(&shown, |shown, paint| table(shown, paint))
}

fn overwrite(force: bool) -> Overwrite {
    if force { Overwrite::Replace } else { Overwrite::Refuse }
}

fn issue(
    identities: &[Identity],
    dir: &Path,
    out: &Path,
    days: u32,
    overwrite: Overwrite,
) -> Result<Vec<Shown>, Failure> {
    let usage = |error: PkiError| Failure::usage(&error);
    let authority = Authority::load(dir).map_err(|error| match &error {
        PkiError::Read { path, .. } if !path.exists() => Failure::Usage(format!(
            "there is no CA in {} ({} is missing): make one with `regentctl pki init --dir {}`",
            dir.display(),
            path.display(),
            dir.display()
        )),
        _ => usage(error),
    })?;
    let mut shown = Vec::new();
    for identity in identities {
        let issued = authority.issue(identity, days).map_err(usage)?;
        let (cert, key) = regent_pki::write_issued(out, &issued, overwrite).map_err(usage)?;
        shown.push(show(&cert, Some(key))?);
    }
    Ok(shown)
}

fn show(file: &Path, key: Option<PathBuf>) -> Result<Shown, Failure> {
    let certificate = regent_pki::read_certificate(file).map_err(|error| Failure::usage(&error))?;
    let info = CertificateInfo::from_der(&certificate)
        .map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))?;
    let (identity, problem) = match &info.identity {
        Ok(identity) => (Some(identity.to_string()), None),
        Err(_) if info.is_ca => (None, None),
        Err(error) => (None, Some(error.to_string())),
    };
    Ok(Shown {
        file: file.to_owned(),
        key,
        identity,
        problem,
        is_ca: info.is_ca,
        subject: info.subject.clone(),
        issuer: info.issuer.clone(),
        serial: info.serial.clone(),
        dns_names: info.dns_names.clone(),
        server_auth: info.server_auth,
        client_auth: info.client_auth,
        not_before: date(info.not_before),
        not_after: date(info.not_after),
        days_left: info.days_left(OffsetDateTime::now_utc()),
    })
}

fn table(shown: &[Shown], paint: &Paint) -> String {
    let columns = [
        Column::Left("IDENTITY"),
        Column::Left("USE"),
        Column::Left("EXPIRES"),
        Column::Right("DAYS LEFT"),
        Column::Left("FILE"),
    ];
    let mut table = Table::new(0, &columns);
    let mut notes = String::new();
    for certificate in shown {
        let identity = match &certificate.identity {
            Some(identity) => identity.clone(),
            None if certificate.is_ca => format!("CA ({})", certificate.subject),
            None => "none".to_owned(),
        };
        let purpose = match (certificate.server_auth, certificate.client_auth) {
            (true, true) => "server, client",
            (true, false) => "server",
            (false, true) => "client",
            (false, false) => "",
        };
        let tone = match certificate.days_left {
            ..0 => Some(Tone::Bad),
            0..regent_pki::WARN_BEFORE_EXPIRY_DAYS => Some(Tone::Warn),
            _ => None,
        };
        table.row([
            (identity, certificate.identity.is_none().then_some(Tone::Quiet)),
            (purpose.to_owned(), None),
            (certificate.not_after.clone(), tone),
            (certificate.days_left.to_string(), tone),
            (certificate.file.display().to_string(), None),
        ]);
        if let Some(problem) = &certificate.problem {
            notes.push_str(&format!("! {}: {problem}\n", certificate.file.display()));
        }
        if let Some(key) = &certificate.key {
            notes.push_str(&format!("key: {} (keep it secret)\n", key.display()));
        }
    }
    table.render(paint) + &notes
}
