//! Connections, the server, failover (faults 17 to 32).
