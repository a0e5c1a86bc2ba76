//! The address of a client, through proxies that the configuration trusts and through no others.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use serde::{Deserialize, Deserializer};

use crate::app::App;

/// A block of addresses, `10.0.0.0/8` or a single address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

impl Network {
    /// True if `address` is in the block. IPv4 in IPv6 clothes counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        mask(address.to_canonical(), self.prefix) == Some(self.base)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no address or block of addresses; write 127.0.0.1 or 10.0.0.0/8");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), |prefix| prefix.trim().parse().map_err(|_| wrong()))?;
        let base = mask(address, prefix).ok_or_else(wrong)?;
        Ok(Self { base, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn mask(address: IpAddr, prefix: u8) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            let shift = 32u32.checked_sub(u32::from(prefix))?;
            let bits = u32::from(v4).checked_shr(shift).unwrap_or(0).checked_shl(shift).unwrap_or(0);
            Some(IpAddr::V4(bits.into()))
        }
        IpAddr::V6(v6) => {
            let shift = 128u32.checked_sub(u32::from(prefix))?;
            let bits = u128::from(v6).checked_shr(shift).unwrap_or(0).checked_shl(shift).unwrap_or(0);
            Some(IpAddr::V6(bits.into()))
        }
    }
}

/// The network whose tries are counted together: a /24 of IPv4, a /56 of IPv6 (what one customer usually holds).
pub fn network_of(address: IpAddr) -> String {
    let address = address.to_canonical();
    let prefix = if address.is_ipv4() { 24 } else { 56 };
    match mask(address, prefix) {
        Some(base) => format!("{base}/{prefix}"),
        None => address.to_string(),
    }
}

/// Follows `X-Forwarded-For` from the right, as long as who added an entry is a trusted proxy.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    // Bytes, not text: a header that is no text must stop the walk, not be passed over.
    let entries: Vec<&[u8]> = headers
        .get_all("x-forwarded-for")
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .collect();
    for entry in entries.into_iter().rev() {
        if !is_trusted(client) {
            break;
        }
        let Some(address) = std::str::from_utf8(entry).ok().and_then(parse_entry) else { break };
        client = address.to_canonical();
    }
    client
}

fn parse_entry(entry: &str) -> Option<IpAddr> {
    entry
        .parse()
        .ok()
        .or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
}

/// The client's address, as an extractor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Client(pub IpAddr);

impl Client {
    /// See [`network_of`].
    pub fn network(&self) -> String {
        network_of(self.0)
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromRequestParts<App> for Client {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        // Without connection information (a test that calls the router) everybody is one client.
        let peer = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map_or(IpAddr::from([0, 0, 0, 0]), |info| info.0.ip());
        Ok(Self(client_address(peer, &parts.headers, &app.config.trusted_proxies)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted: Vec<Network> = ["10.0.0.0/8", "::1"].iter().map(|text| text.parse().unwrap()).collect();
        let check = |peer: &str, values: &[&str], expected: &str| {
            let client = client_address(peer.parse().unwrap(), &headers(values), &trusted);
            assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{peer} {values:?}");
        };
        check("203.0.113.9", &["198.51.100.1"], "203.0.113.9");
        check("10.1.2.3", &[], "10.1.2.3");
        check("10.1.2.3", &["198.51.100.1"], "198.51.100.1");
        check("::ffff:10.1.2.3", &["198.51.100.1"], "198.51.100.1");
        // What a client wrote itself stands further left and is not reached.
        check("10.1.2.3", &["1.1.1.1, 198.51.100.1, 10.9.9.9"], "198.51.100.1");
        check("10.1.2.3", &["1.1.1.1", "198.51.100.1"], "198.51.100.1");
        check("10.1.2.3", &["rubbish"], "10.1.2.3");
        check("::1", &["[2001:db8::1]:443"], "2001:db8::1");
        let mut strange = headers(&["1.1.1.1"]);
        strange
            .append("x-forwarded-for", axum::http::HeaderValue::from_bytes(b"\xff, 198.51.100.1").unwrap());
        assert_eq!(
            client_address("10.1.2.3".parse().unwrap(), &strange, &trusted),
            "198.51.100.1".parse::<IpAddr>().unwrap()
        );
        strange.append("x-forwarded-for", axum::http::HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(
            client_address("10.1.2.3".parse().unwrap(), &strange, &trusted),
            "10.1.2.3".parse::<IpAddr>().unwrap()
        );
    }

    #[test]
    fn networks_are_read_and_refused() {
        let network: Network = "10.1.2.3/8".parse().unwrap();
        assert_eq!(network.to_string(), "10.0.0.0/8");
        assert!(
            network.contains("10.255.0.1".parse().unwrap()) && !network.contains("11.0.0.1".parse().unwrap())
        );
        assert!("0.0.0.0/0".parse::<Network>().unwrap().contains("8.8.8.8".parse().unwrap()));
        for bad in ["", "10.0.0.0/33", "x/8", "10.0.0.0/", "::/129"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn counting_networks_are_24_and_56_bits_wide() {
        assert_eq!(network_of("198.51.100.77".parse().unwrap()), "198.51.100.0/24");
        assert_eq!(network_of("2001:db8:1:2ff::1".parse().unwrap()), "2001:db8:1:200::/56");
        assert_eq!(network_of("::ffff:198.51.100.77".parse().unwrap()), "198.51.100.0/24");
    }
}
