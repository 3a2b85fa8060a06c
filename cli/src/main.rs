//! The boltzmap command.
fn main() {}
