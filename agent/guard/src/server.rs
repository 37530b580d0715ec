//! The socket's clients: bytes in, request lines out, answers back. Decides nothing; never blocks.
//!
//! One request of a client is worked on at a time; further lines wait in its buffer.

use crate::sys;
use crate::wire::{Answer, LINE_BYTES_MAX, Request, WireError};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

const CLIENTS_MAX: usize = 64;

/// Names a connection; never reused.
pub type ClientId = u64;

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    pid: libc::pid_t,
    input: Vec<u8>,
    output: Vec<u8>,
    busy: bool,
    closed: bool,
}

/// The listener and its connections.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    clients: BTreeMap<ClientId, Client>,
    next: ClientId,
}

impl Server {
    /// Listens. The caller holds the lock, so a socket file that is there is a dead guard's.
    pub fn listen(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // SAFETY: no memory is involved. Nobody can connect between bind and the change of mode.
        let before = unsafe { libc::umask(0o177) };
        let listener = UnixListener::bind(path);
        // SAFETY: as above.
        unsafe { libc::umask(before) };
        let listener = listener?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, clients: BTreeMap::new(), next: 1 })
    }

    /// What to poll for: the listener (as `None`) and each client.
    pub fn poll_set(&self) -> Vec<(Option<ClientId>, RawFd, libc::c_short)> {
        let mut set = Vec::with_capacity(self.clients.len() + 1);
        if self.clients.len() < CLIENTS_MAX {
            set.push((None, self.listener.as_raw_fd(), libc::POLLIN));
        }
        for (id, client) in &self.clients {
            let mut events = 0;
            if client.input.len() < LINE_BYTES_MAX && !client.closed {
                events |= libc::POLLIN;
            }
            if !client.output.is_empty() {
                events |= libc::POLLOUT;
            }
            set.push((Some(*id), client.stream.as_raw_fd(), events));
        }
        set
    }

    /// Takes what waits at the listener; other users are turned away.
    pub fn accept(&mut self) {
        while self.clients.len() < CLIENTS_MAX {
            let Ok((stream, _)) = self.listener.accept() else { return };
            // SAFETY: no arguments.
            let uid = unsafe { libc::geteuid() };
            let Ok(peer) = peer(&stream) else { continue };
            // Root could do anything to the guard anyway, so it may as well ask.
            if (peer.uid != uid && peer.uid != 0) || stream.set_nonblocking(true).is_err() {
                continue;
            }
            let client = Client {
                stream,
                pid: peer.pid,
                input: Vec::new(),
                output: Vec::new(),
                busy: false,
                closed: false,
            };
            self.clients.insert(self.next, client);
            self.next += 1;
        }
    }

    /// Moves bytes. False when the client is gone.
    pub fn pump(&mut self, id: ClientId) -> bool {
        let Some(client) = self.clients.get_mut(&id) else { return false };
        let mut alive = client.flush();
        let mut buffer = [0; 4096];
        while alive && !client.closed && client.input.len() < LINE_BYTES_MAX {
            match client.stream.read(&mut buffer) {
                // It may only have closed its sending side and still wait for the answer: keep it while one is owed.
                Ok(0) => client.closed = true,
                Ok(got) => client.input.extend_from_slice(&buffer[..got]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => alive = false,
            }
        }
        if client.closed && !client.busy && client.output.is_empty() && !client.input.contains(&b'\n') {
            alive = false;
        }
        if !alive {
            self.clients.remove(&id);
        }
        alive
    }

    /// A hang-up or an error was polled: nobody is there to answer.
    pub fn drop_client(&mut self, id: ClientId) {
        self.clients.remove(&id);
    }

    /// The next request of a client that is not waiting for an answer.
    pub fn next_request(&mut self, id: ClientId) -> Option<Result<Request, WireError>> {
        let client = self.clients.get_mut(&id)?;
        if client.busy {
            return None;
        }
        let Some(end) = client.input.iter().position(|byte| *byte == b'\n') else {
            if client.input.len() >= LINE_BYTES_MAX {
                client.input.clear();
                client.closed = true;
                client.busy = true;
                return Some(Err(WireError(format!("the line is longer than {LINE_BYTES_MAX} bytes"))));
            }
            return None;
        };
        let line: Vec<u8> = client.input.drain(..=end).collect();
        client.busy = true;
        let text = String::from_utf8(line).map_err(|_| WireError("the line is not UTF-8".into()));
        Some(text.and_then(|text| Request::parse(&text)))
    }

    /// Answers the request of a client.
    pub fn answer(&mut self, id: ClientId, answer: &Answer) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.output.extend_from_slice(answer.encode().as_bytes());
            client.busy = false;
            if !client.flush() {
                self.clients.remove(&id);
            }
        }
    }

    /// Is the connection still there?
    pub fn is_connected(&self, id: ClientId) -> bool {
        self.clients.contains_key(&id)
    }

    /// The client's process.
    pub fn peer_pid(&self, id: ClientId) -> Option<libc::pid_t> {
        self.clients.get(&id).map(|client| client.pid)
    }

    /// Every connection.
    pub fn ids(&self) -> Vec<ClientId> {
        self.clients.keys().copied().collect()
    }
}

impl Client {
    fn flush(&mut self) -> bool {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return false,
                Ok(sent) => drop(self.output.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

fn peer(stream: &UnixStream) -> io::Result<libc::ucred> {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut size = size_of_val(&peer) as libc::socklen_t;
    // SAFETY: the buffer has `size` bytes.
    sys::check(unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut size,
        )
    })?;
    Ok(peer)
}
