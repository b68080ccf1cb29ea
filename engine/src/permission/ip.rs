//! Addresses and networks in ACL entries of the scheme `ip`.

/// The expression of an entry: an address, and how many of its bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: Address,
    bits: u32,
}

/// An address as a number, so that masks are shifts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Address {
    V4(u32),
    V6(u128),
}

impl Network {
    /// Reads `address` or `address/bits`; none if the scheme refuses it.
    ///
    // Compat: IPAuthenticationProvider.isValid and matches of 3.9.5, which know IPv6 too
    pub fn parse(expression: &str) -> Option<Self> {
        let (address, bits) = match expression.split_once('/') {
            Some((address, bits)) => (Address::parse(address)?, Some(bits)),
            None => (Address::parse(expression)?, None),
        };
        let bits_max = match address {
            Address::V4(_) => u32::BITS,
            Address::V6(_) => u128::BITS,
        };
        let bits = match bits {
            Some(bits) => bits.parse::<i32>().ok().and_then(|bits| u32::try_from(bits).ok())?,
            None => bits_max,
        };
        (bits <= bits_max).then_some(Self { address, bits })
    }

    /// Whether the address with this text is in the network.
    pub fn has(&self, address: &str) -> bool {
        match (self.address, Address::parse(address)) {
            (Address::V4(ours), Some(Address::V4(other))) => {
                (ours ^ other).leading_zeros() >= self.bits
            }
            (Address::V6(ours), Some(Address::V6(other))) => {
                (ours ^ other).leading_zeros() >= self.bits
            }
            _ => false,
        }
    }
}

impl Address {
    fn parse(text: &str) -> Option<Self> {
        if text.contains(':') { parse_v6(text).map(Self::V6) } else { parse_v4(text).map(Self::V4) }
    }
}

/// Numbers as Java's parser takes them, so with a sign if there is one.
fn parse_v4(text: &str) -> Option<u32> {
    let mut address = 0;
    let mut parts = text.split('.');
    for _ in 0..4 {
        let part = parts.next()?.parse::<i32>().ok()?;
        address = address << 8 | u32::from(u8::try_from(part).ok()?);
    }
    parts.next().is_none().then_some(address)
}

fn parse_v6(text: &str) -> Option<u128> {
    const SEGMENTS: usize = 8;
    let mut halves = text.split("::");
    let (first, last) = (halves.next()?, halves.next());
    if halves.next().is_some() {
        return None;
    }
    let Some(last) = last else {
        let (address, count) = parse_segments(first)?;
        return (count == SEGMENTS).then_some(address);
    };
    let half = |text: &str| if text.is_empty() { Some((0, 0)) } else { parse_segments(text) };
    let ((first, first_count), (last, last_count)) = (half(first)?, half(last)?);
    if first_count + last_count >= SEGMENTS {
        return None;
    }
    let left = 16 * (SEGMENTS - first_count) as u32;
    Some(first.checked_shl(left).unwrap_or(0) | last)
}

/// Segments of at most four characters each, in hex; as one number, and their count.
fn parse_segments(text: &str) -> Option<(u128, usize)> {
    let mut address = 0_u128;
    let mut count = 0;
    for segment in text.split(':') {
        count += 1;
        if segment.is_empty() || segment.len() > 4 || count > 8 {
            return None;
        }
        let value = i32::from_str_radix(segment, 16).ok()?;
        address = address << 16 | u128::from(value as u16);
    }
    Some((address, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, address: &str, expect: bool) {
        let network = Network::parse(expression).unwrap();
        assert_eq!(network.has(address), expect, "{expression} {address}");
    }

    #[test]
    fn networks_have_the_addresses_that_share_their_bits() {
        check("10.0.0.1", "10.0.0.1", true);
        check("10.0.0.1", "10.0.0.2", false);
        check("10.0.0.9/24", "10.0.0.200", true);
        check("10.0.0.9/25", "10.0.0.200", false);
        check("10.0.0.9/0", "200.1.1.1", true);
        check("::1", "0:0:0:0:0:0:0:1", true);
        check("2001:db8::/32", "2001:db8:0:0:0:0:abcd:1", true);
        check("2001:db8::/32", "2001:db9:0:0:0:0:abcd:1", false);
        check("1:2:3:4:5:6:7:8/128", "1:2:3:4:5:6:7:8", true);
        check("::/0", "10.0.0.1", false);
        check("10.0.0.1", "localhost", false);
    }

    #[test]
    fn what_the_scheme_refuses_is_no_network() {
        for bad in ["", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.-1", "a.b.c.d", "1.2.3."] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
        for bad in ["1.2.3.4/33", "1.2.3.4/-1", "1.2.3.4/", "1.2.3.4/8/8", "::/129"] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
        for bad in [":", ":::", "1:2", "1::2::3", "12345::", "1:2:3:4:5:6:7::8", "::g", "::1.2.3.4"]
        {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }
}
