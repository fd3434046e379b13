//! Files and locks (faults 33 to 49).
