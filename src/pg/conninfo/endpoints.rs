//! Hosts, addresses and ports: three lists that have to agree.

use std::net::IpAddr;

use tokio_postgres::Config;

use super::ConninfoError;
use super::params::{Param, Params};
use super::system::System;

const DEFAULT_PORT: u16 = 5432;

/// The servers to try, in order.
pub(super) struct Endpoints {
    /// Names or socket directories; empty where only addresses are given.
    hosts: Vec<String>,
    /// Addresses that save the look-up of each name; empty or one for each host.
    addresses: Vec<IpAddr>,
    /// One for each host.
    ports: Vec<u16>,
}

impl Endpoints {
    pub(super) fn new(params: &Params, system: &System<'_>) -> Result<Self, ConninfoError> {
        let given = params.get("port").map_or(Ok(Vec::new()), ports)?;
        let addresses = params.get("hostaddr").map_or(Ok(Vec::new()), addresses)?;
        let first_port = given.first().copied().unwrap_or(DEFAULT_PORT);
        let port_of = |at| given.get(at).copied().unwrap_or(first_port);
        let hosts: Vec<String> = match params.text("host") {
            None if !addresses.is_empty() => Vec::new(),
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
        let count = hosts.len().max(addresses.len());
        if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
            return Err(mismatch(params, "hostaddr", addresses.len(), hosts.len()));
        }
        if given.len() > 1 && given.len() != count {
            return Err(mismatch(params, "port", given.len(), count));
        }
        let ports = (0..count).map(port_of).collect();
        Ok(Self {
            hosts,
            addresses,
            ports,
        })
    }

    /// Hands the lists to the driver, which takes a single port as everybody's.
    pub(super) fn apply(&self, config: &mut Config) {
        for host in &self.hosts {
            config.host(host);
        }
        for address in &self.addresses {
            config.hostaddr(*address);
        }
        let all_equal = self.ports.windows(2).all(|pair| pair[0] == pair[1]);
        let needed = if all_equal { 1 } else { self.ports.len() };
        for port in self.ports.iter().take(needed) {
            config.port(*port);
        }
    }

    /// Host and port of each server, as a password file names them.
    pub(super) fn names(&self) -> Vec<(String, u16)> {
        let names: Vec<String> = if self.hosts.is_empty() {
            self.addresses.iter().map(ToString::to_string).collect()
        } else {
            self.hosts.clone()
        };
        names.into_iter().zip(self.ports.iter().copied()).collect()
    }
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
