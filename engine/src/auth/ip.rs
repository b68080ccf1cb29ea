//! The ip scheme: a connection has the address of its peer as an id, in the text that Java gives.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::acl::Id;

/// The id that every connection from `peer` has.
// Compat: NIOServerCnxn's constructor, IPAuthenticationProvider.handleAuthentication
pub fn id_of(peer: SocketAddr) -> Id {
    Id::new("ip", host_address(peer))
}

/// The address of `peer` as text: IPv4 dotted, also where it came in over an IPv6 socket; IPv6 as
/// eight groups, none left out, and the scope where there is one.
// Compat: InetAddress.getHostAddress
pub fn host_address(peer: SocketAddr) -> String {
    match (peer.ip().to_canonical(), peer) {
        (IpAddr::V4(address), _) => address.to_string(),
        (IpAddr::V6(address), SocketAddr::V6(full)) if full.scope_id() != 0 => {
            format!("{}%{}", groups(address), full.scope_id())
        }
        (IpAddr::V6(address), _) => groups(address),
    }
}

fn groups(address: Ipv6Addr) -> String {
    address.segments().map(|group| format!("{group:x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(peer: &str, expected: &str) {
        assert_eq!(id_of(peer.parse().unwrap()), Id::new("ip", expected));
    }

    #[test]
    fn addresses_read_as_in_java() {
        check("127.0.0.1:1", "127.0.0.1");
        check("[::1]:1", "0:0:0:0:0:0:0:1");
        check("[2001:db8::ABCD:1]:1", "2001:db8:0:0:0:0:abcd:1");
        check("[::ffff:1.2.3.4]:1", "1.2.3.4");
        check("[fe80::1%3]:1", "fe80:0:0:0:0:0:0:1%3");
    }
}
