//! Sockets as both implementations want them: made, tuned and asked in one place.
//!
//! Connections stay in blocking mode: io_uring would answer EAGAIN on a non-blocking socket in
//! place of waiting, and epoll's calls say MSG_DONTWAIT themselves. So a descriptor can go from any
//! ring to any other.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, Shutdown, SocketFlags, SocketType, ipproto, sockopt};

/// Attempts to take a port that somebody has, and the pause between two.
const ATTEMPTS_MAX: usize = 1_000;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(2);

/// Listens on `address`, port 0 for any. A second server on the same port is refused
/// (no SO_REUSEPORT: the kernel would split the clients between the two); connections of
/// an earlier process in TIME_WAIT are no obstacle. An IPv6 wildcard takes IPv4 clients too.
pub fn bind(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = new_socket(address, SocketFlags::CLOEXEC)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    net::bind(&socket, &address)?;
    net::listen(&socket, i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(TcpListener::from(socket))
}

/// As [`bind`], but for two seconds a port that is in use is waited for: the kernel ends an
/// io_uring, and lets go of the sockets in it, only some time after its process is gone. Whoever
/// starts a killed server again at once would not find its port free.
pub fn bind_when_free(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    when_free(|| bind(address, backlog), || thread::sleep(ATTEMPT_PAUSE))
}

fn when_free<T>(mut bind: impl FnMut() -> io::Result<T>, pause: impl Fn()) -> io::Result<T> {
    for _ in 1..ATTEMPTS_MAX {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => pause(),
            outcome => return outcome,
        }
    }
    bind()
}

/// Begins to connect; the socket becomes writable when that is decided.
pub(crate) fn begin_connect(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = new_socket(address, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    match net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// How the attempt of `begin_connect` ended; the socket is then like an accepted one.
pub(crate) fn finish_connect(socket: &OwnedFd) -> io::Result<()> {
    sockopt::socket_error(socket)??;
    // A free port that the kernel also picked as our own: nobody listens there.
    if net::getsockname(socket)? == net::getpeername(socket)?.ok_or(Errno::NOTCONN)? {
        return Err(Errno::CONNREFUSED.into());
    }
    prepare_connection(socket)
}

/// Sets what every connection has: blocking mode, no delay of small writes.
pub(crate) fn prepare_connection(socket: &OwnedFd) -> io::Result<()> {
    rustix::io::ioctl_fionbio(socket, false)?;
    // A peer whose host has vanished is found out about, however idle its connection is.
    sockopt::set_socket_keepalive(socket, true)?;
    match sockopt::set_tcp_nodelay(socket, true) {
        // Not a TCP socket, or one that the peer has reset already: the next receive says so.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Ends the connection if what is sent is not acknowledged in time, where there is a limit. Without
/// one it lasts for minutes, and so do the pauses between the kernel's attempts to send it again.
pub(crate) fn limit_silence(socket: &OwnedFd, limit: Option<Duration>) -> io::Result<()> {
    let Some(limit) = limit else { return Ok(()) };
    let limit_ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
    Ok(sockopt::set_tcp_user_timeout(socket, limit_ms)?)
}

/// Who is at the other end; `None` if the connection is gone already.
pub(super) fn peer_address(socket: &OwnedFd) -> Option<SocketAddr> {
    let address = net::getpeername(socket).ok()??;
    SocketAddr::try_from(address).ok()
}

/// Says that nothing more will be sent. Fails only on a connection that is gone, of which the ring
/// learns by other ways.
pub(crate) fn shutdown_write(socket: impl AsFd) {
    match net::shutdown(socket, Shutdown::Write) {
        Ok(()) | Err(_) => {}
    }
}

/// What to do about an error of accept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AcceptError {
    /// This one connection is gone: take the next.
    Skip,
    /// Descriptors or memory ran out, or worse: trying at once again would spin.
    Pause,
}

impl AcceptError {
    pub(crate) fn of(errno: Errno) -> Self {
        match errno {
            Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::AGAIN => Self::Skip,
            _ => Self::Pause,
        }
    }
}

fn new_socket(address: SocketAddr, flags: SocketFlags) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_waited_for_within_bounds_and_other_errors_are_not() {
        let check = |kind: io::ErrorKind, failures: usize, expected: (bool, usize)| {
            let mut attempts = 0;
            let bind = || {
                attempts += 1;
                if attempts > failures { Ok(()) } else { Err(kind.into()) }
            };
            let is_bound = when_free(bind, || {}).is_ok();
            assert_eq!((is_bound, attempts), expected, "{kind:?}, {failures}");
        };
        check(io::ErrorKind::AddrInUse, 0, (true, 1));
        check(io::ErrorKind::AddrInUse, 3, (true, 4));
        check(io::ErrorKind::AddrInUse, usize::MAX, (false, ATTEMPTS_MAX));
        check(io::ErrorKind::AddrNotAvailable, 1, (false, 1));
    }
}
