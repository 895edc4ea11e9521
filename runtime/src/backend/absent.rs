//! Names of the backends that this target lacks: [`super::Backend`] is not implemented for them, and its error says what to do.

macro_rules! absent {
    ($($(#[$condition:meta])* $name:ident: $cores:literal;)*) => {$(
        $(#[$condition])*
        #[doc = concat!("Kernels for ", $cores, ". This target has none of those cores.")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name<K = super::AllKernels>(core::convert::Infallible, core::marker::PhantomData<K>);

        $(#[$condition])*
        impl<K> $name<K> {
            /// There is no token.
            pub const fn detect() -> Option<Self> {
                None
            }
        }
    )*};
}

absent! {
    #[cfg(not(tucano_profile = "v8m"))] Helium: "cores with Helium";
    #[cfg(not(any(tucano_profile = "v7em", tucano_profile = "v8m")))] ThumbDsp: "cores with the DSP extension";
    #[cfg(not(any(tucano_profile = "v6m", tucano_profile = "v7m")))] ThumbScalar: "Cortex-M0, M0+ and M3";
}
