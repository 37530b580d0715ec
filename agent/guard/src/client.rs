//! A blocking client with a deadline. One connection a call: there is nothing to resynchronise after a timeout.
//!
//! A timeout means *unknown*: the guard may have obeyed. Every verb may be repeated.

use crate::sys;
use crate::wire::{Answer, LINE_BYTES_MAX, Request, Status, WireError};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// No connection: the request was not delivered.
    Connect(io::Error),
    /// The connection broke or the time was over: whether the request was obeyed is unknown.
    Unknown(io::Error),
    /// The answer could not be understood.
    Wire(WireError),
    /// The guard answered, but not `ok`.
    NotOk(Answer),
}

impl std::fmt::Display for ClientError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(_) => f.write_str("the guard cannot be reached"),
            Self::Unknown(_) => f.write_str("the guard gave no answer; whether it obeyed is unknown"),
            Self::Wire(_) => f.write_str("the guard's answer could not be understood"),
            Self::NotOk(Answer::Refused { reason, .. }) => write!(f, "the guard refused: {reason}"),
            Self::NotOk(answer) => write!(f, "the guard failed: {}", answer.encode().trim_end()),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(error) | Self::Unknown(error) => Some(error),
            Self::Wire(error) => Some(error),
            Self::NotOk(_) => None,
        }
    }
}

/// Talks to the guard at a socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// For the guard whose socket this is.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// One request, one answer, within `timeout` in all.
    pub fn call(&self, request: &Request, timeout: Duration) -> Result<Answer, ClientError> {
        let deadline = Instant::now() + timeout;
        let mut stream = connect(&self.socket, timeout).map_err(ClientError::Connect)?;
        stream.write_all(request.encode().as_bytes()).map_err(ClientError::Unknown)?;
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        while !bytes.contains(&b'\n') {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || bytes.len() > LINE_BYTES_MAX {
                return Err(ClientError::Unknown(io::ErrorKind::TimedOut.into()));
            }
            stream.set_read_timeout(Some(left)).map_err(ClientError::Unknown)?;
            match stream.read(&mut buffer) {
                Ok(0) => return Err(ClientError::Unknown(io::ErrorKind::UnexpectedEof.into())),
                Ok(got) => bytes.extend_from_slice(&buffer[..got]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ClientError::Unknown(error)),
            }
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| ClientError::Wire(WireError("the answer is not UTF-8".into())))?;
        Answer::parse(&text).map_err(ClientError::Wire)
    }

    /// Everything the guard knows.
    pub fn status(&self, timeout: Duration) -> Result<Status, ClientError> {
        match self.call(&Request::Status, timeout)? {
            Answer::Ok(fields) => Status::from_fields(&fields).map_err(ClientError::Wire),
            other => Err(ClientError::NotOk(other)),
        }
    }
}

/// Like `UnixStream::connect`, with a limit: a stopped guard's full queue would block for ever.
fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    // SAFETY: sockaddr_un is plain data.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("socket path {path:?} is not possible"),
        ));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    // SAFETY: no memory is involved.
    let fd: OwnedFd =
        sys::owned(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    let raw = fd.as_raw_fd();
    let stream = UnixStream::from(fd);
    stream.set_write_timeout(Some(timeout.max(Duration::from_millis(1))))?;
    // SAFETY: the address is initialised and of that size.
    sys::check(unsafe {
        libc::connect(raw, (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
    })?;
    Ok(stream)
}
