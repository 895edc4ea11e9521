//! What the host program writes for one model: the operators that get linked, and the sizes of its buffers.
include!(env!("TUCANO_PROGRAM"));
