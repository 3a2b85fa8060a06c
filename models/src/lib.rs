//! Networks, flow maps, continuous flows, parameters and checkpoints.
