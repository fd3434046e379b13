//! Restored data, shared objects, durability (faults 61 to 70).
