//! Hosts, addresses and ports: three lists that have to agree.

use std::net::IpAddr;

use super::ConninfoError;
use super::params::{Param, Params};
use super::system::System;

const DEFAULT_PORT: u16 = 5432;

/// One server to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::pg) struct Server {
    /// A name, the directory of a socket, or the address where there is no name.
    pub(in crate::pg) name: String,
    /// Saves the look-up of the name.
    pub(in crate::pg) address: Option<IpAddr>,
    pub(in crate::pg) port: u16,
}

impl Server {
    /// Whether it is reached through a Unix socket.
    pub(in crate::pg) fn is_socket(&self) -> bool {
        self.name.starts_with('/') && self.address.is_none()
    }

    /// Whether the connection stays on this machine.
    pub(super) fn is_local(&self) -> bool {
        let address = self.address.or_else(|| self.name.parse().ok());
        self.is_socket()
            || address.map_or(self.name == "localhost", |address| address.is_loopback())
    }
}

/// The servers to try, in order.
pub(super) fn servers(params: &Params, system: &System<'_>) -> Result<Vec<Server>, ConninfoError> {
    let given = params.get("port").map_or(Ok(Vec::new()), ports)?;
    let addresses = params.get("hostaddr").map_or(Ok(Vec::new()), addresses)?;
    let first_port = given.first().copied().unwrap_or(DEFAULT_PORT);
    let port_of = |at| given.get(at).copied().unwrap_or(first_port);
    let names: Vec<String> = match params.text("host") {
        None if !addresses.is_empty() => addresses.iter().map(ToString::to_string).collect(),
        names => names
            .unwrap_or_default()
            .split(',')
            .enumerate()
            .map(|(at, host)| match host {
                "" => system.default_host(port_of(at)).to_owned(),
                host => host.to_owned(),
            })
            .collect(),
    };
    let count = names.len();
    if !addresses.is_empty() && count != addresses.len() {
        return Err(mismatch(params, "hostaddr", addresses.len(), count));
    }
    if given.len() > 1 && given.len() != count {
        return Err(mismatch(params, "port", given.len(), count));
    }
    let server = |(at, name)| Server {
        name,
        address: addresses.get(at).copied(),
        port: port_of(at),
    };
    Ok(names.into_iter().enumerate().map(server).collect())
}

fn ports(param: &Param) -> Result<Vec<u16>, ConninfoError> {
    let port = |text: &str| match text.trim() {
        "" => Some(DEFAULT_PORT),
        text => text.parse().ok().filter(|port| *port > 0),
    };
    let ports: Option<Vec<u16>> = param.value.split(',').map(port).collect();
    ports.ok_or_else(|| param.invalid("a port is a number from 1 to 65535"))
}

fn addresses(param: &Param) -> Result<Vec<IpAddr>, ConninfoError> {
    let addresses: Result<Vec<IpAddr>, _> = param
        .value
        .split(',')
        .map(|text| text.trim().parse())
        .collect();
    addresses.map_err(|_| param.invalid("expected an IP address for every host"))
}

/// An error about two lists of different length.
fn mismatch(params: &Params, name: &str, found: usize, hosts: usize) -> ConninfoError {
    ConninfoError::Invalid {
        parameter: params
            .get(name)
            .map_or(name, |param| &param.source)
            .to_owned(),
        reason: format!("a list of {found} for {hosts} hosts"),
    }
}
