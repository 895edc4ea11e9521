tucano::op_set! {
    /// None.
    pub struct Ops { }
}
/// The backend.
pub type Backend = tucano::backend::ThumbDsp;
/// Its token.
pub fn backend() -> Option<Backend> { tucano::backend::ThumbDsp::detect() }
pub const ARENA_BYTES: usize = 0;
pub const STATE_BYTES: usize = 0;
pub const BLOB_BYTES: usize = 0;
