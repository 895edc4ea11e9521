//! Which kernels of a backend a firmware links.

/// A choice among the kernels of a backend, by the names that [`super::spec::select`] gives them. The converter writes it for each model.
///
/// Portable code of integer linear layers is one of them, by the name [`SCALAR`](super::spec::select::SCALAR): it takes every layer that no
/// linked kernel takes, with the same result. Where it is not named, such a layer ends a run with [`crate::ErrorKind::NotLinked`].
///
/// ```
/// #[derive(Clone, Copy)]
/// struct Mine;
///
/// impl tucano::backend::Kernels for Mine {
///     const NAMES: Option<&'static [&'static str]> = Some(&["pairs, pointwise", "strips"]);
/// }
///
/// type Backend = tucano::backend::ThumbDsp<Mine>;
/// ```
pub trait Kernels: Copy {
    /// The names; `None`: all kernels.
    const NAMES: Option<&'static [&'static str]>;
}

/// All kernels.
#[derive(Clone, Copy, Debug)]
pub struct AllKernels;

impl Kernels for AllKernels {
    const NAMES: Option<&'static [&'static str]> = None;
}

/// Whether the kernel of this name is linked. For constants: at run time there are no names.
#[cfg(any(
    test,
    tucano_profile = "v6m",
    tucano_profile = "v7m",
    tucano_profile = "v7em",
    tucano_profile = "v8m"
))]
pub(crate) const fn links<K: Kernels>(name: &str) -> bool {
    contains(K::NAMES, name)
}

/// Whether there is this name among `names`, or `names` are all.
pub(crate) const fn contains(names: Option<&[&str]>, name: &str) -> bool {
    let Some(mut names) = names else { return true };
    while let [first, rest @ ..] = names {
        if equal(first.as_bytes(), name.as_bytes()) {
            return true;
        }
        names = rest;
    }
    false
}

const fn equal(mut a: &[u8], mut b: &[u8]) -> bool {
    while let ([x, others_of_a @ ..], [y, others_of_b @ ..]) = (a, b) {
        if *x != *y {
            return false;
        }
        (a, b) = (others_of_a, others_of_b);
    }
    a.is_empty() && b.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    struct Some2;

    impl Kernels for Some2 {
        const NAMES: Option<&'static [&'static str]> = Some(&["strips", "pairs, dense"]);
    }

    #[test]
    fn names_are_compared_whole() {
        assert!(links::<Some2>("strips") && links::<Some2>("pairs, dense"));
        assert!(!links::<Some2>("strip") && !links::<Some2>("strips2") && !links::<Some2>(""));
        assert!(links::<AllKernels>("strips") && links::<AllKernels>("any"));
    }
}
