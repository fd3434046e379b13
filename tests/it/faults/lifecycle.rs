//! Start, stop, several daemons, scale, hostile input (faults 50 to 60).
