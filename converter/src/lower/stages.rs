//! A network as a sequence of contractions of the signal.
//!
//! The signal carries a list of modes, at first those of the layer's input. Each core, in contraction order, divides the carried modes in three:
//! those that it does not name *rest* (they only repeat the stage, like more images), those that it names and that are needed later (or are
//! outputs already) are *shared* (groups of a convolution), the others are *summed*. It opens *fresh* modes: outputs and bonds. So one stage is an ordinary
//! convolution or dense layer, with as many groups as the shared modes have combinations.

use crate::compress::network;
use crate::graph::{Core, Mode, Network, Tensor};
use crate::passes::order::{axis_order, gathered};

/// One contraction.
#[derive(Clone, Debug)]
pub(super) struct Stage<'a> {
    core: &'a Core,
    /// Carried, but not named by the core.
    pub rest: Vec<Mode>,
    /// Carried on: the groups.
    pub shared: Vec<Mode>,
    /// Carried no further: the input channels of each group.
    pub summed: Vec<Mode>,
    /// Opened: the output channels of each group.
    pub fresh: Vec<Mode>,
    /// Whether it has the kernel's height, and its width.
    pub window: [bool; 2],
    /// Numbers repeated by `rest`.
    pub repeats: usize,
}

/// Extents of one mode of all cores; 1 where none has it.
pub(super) fn extent(network: &Network, mode: Mode) -> usize {
    network.cores.iter().find(|core| core.modes.contains(&mode)).map_or(1, |core| own_extent(core, mode))
}

fn own_extent(core: &Core, mode: Mode) -> usize {
    core.modes.iter().position(|own| *own == mode).map_or(1, |axis| core.tensor.shape[axis])
}

/// The modes of the layer's input or output, most significant first.
pub(super) fn side(network: &Network, wanted: fn(&Mode) -> bool) -> Vec<Mode> {
    let mut modes: Vec<Mode> =
        network.cores.iter().flat_map(|core| core.modes.iter().copied()).filter(wanted).collect();
    modes.sort_unstable();
    modes.dedup();
    modes
}

/// The contractions of a network in the order of its cores `contraction`, or why there are none.
pub(super) fn stages<'a>(network: &'a Network, contraction: &[usize]) -> Result<Vec<Stage<'a>>, String> {
    network::check(network).map_err(|error| error.to_string())?;
    let cores: Vec<&Core> = contraction.iter().filter_map(|index| network.cores.get(*index)).collect();
    for axis in [Mode::KernelHeight, Mode::KernelWidth] {
        if cores.iter().filter(|core| core.modes.contains(&axis)).count() > 1 {
            return Err(format!("{axis:?} lies in several cores"));
        }
    }
    let mut carried = side(network, |mode| matches!(mode, Mode::Input(_)));
    let mut stages = Vec::with_capacity(cores.len());
    for (step, &core) in cores.iter().enumerate() {
        // The next core that names a mode; outputs are never summed.
        let next = |mode: &Mode| cores[step + 1..].iter().position(|core| core.modes.contains(mode));
        let goes_on = |mode: &Mode| matches!(mode, Mode::Output(_)) || next(mode).is_some();
        let (held, rest): (Vec<Mode>, Vec<Mode>) =
            carried.iter().copied().partition(|mode| core.modes.contains(mode));
        let (shared, summed): (Vec<Mode>, Vec<Mode>) = held.into_iter().partition(goes_on);
        let kernel = |mode: &Mode| matches!(mode, Mode::KernelHeight | Mode::KernelWidth);
        let mut fresh: Vec<Mode> =
            core.modes.iter().copied().filter(|mode| !kernel(mode) && !carried.contains(mode)).collect();
        if let Some(again) = fresh.iter().find(|mode| matches!(mode, Mode::Input(_))) {
            return Err(format!("core {} needs {again:?} again", contraction[step]));
        }
        if let Some(loose) = fresh.iter().find(|mode| !goes_on(mode)) {
            return Err(format!("core {} alone has {loose:?}", contraction[step]));
        }
        // What is summed next comes last, where channels are contiguous.
        fresh.sort_by_key(|mode| (std::cmp::Reverse(next(mode).unwrap_or(usize::MAX)), *mode));
        let repeats = rest.iter().map(|mode| extent(network, *mode)).product();
        carried = [&rest[..], &shared, &fresh].concat();
        let window = [Mode::KernelHeight, Mode::KernelWidth].map(|axis| core.modes.contains(&axis));
        stages.push(Stage { core, rest, shared, summed, fresh, window, repeats });
    }
    let outputs = side(network, |mode| matches!(mode, Mode::Output(_)));
    carried.sort_unstable();
    if carried == outputs { Ok(stages) } else { Err(format!("the chain ends in {carried:?}")) }
}

impl Stage<'_> {
    fn product(&self, modes: &[Mode]) -> usize {
        modes.iter().map(|mode| own_extent(self.core, *mode)).product()
    }

    /// Groups that see only each other.
    pub fn groups(&self) -> usize {
        self.product(&self.shared)
    }

    /// Numbers of the core.
    pub fn len(&self) -> usize {
        self.core.tensor.len()
    }

    /// Channels that it gives, one repeat.
    pub fn outputs(&self) -> usize {
        self.product(&self.shared) * self.product(&self.fresh)
    }

    /// Channels that it takes, one repeat.
    pub fn inputs(&self) -> usize {
        self.product(&self.shared) * self.product(&self.summed)
    }

    /// The core as `[shared and fresh, summed, kernel height, kernel width]`.
    pub fn weight(&self) -> Tensor {
        let window = [Mode::KernelHeight, Mode::KernelWidth];
        let order = [&self.shared[..], &self.fresh, &self.summed, &window].concat();
        let axes: Vec<usize> =
            order.iter().filter_map(|mode| self.core.modes.iter().position(|own| own == mode)).collect();
        let data = gathered(&self.core.tensor.data, &axis_order(&self.core.tensor.shape, &axes));
        let [kh, kw] = window.map(|mode| own_extent(self.core, mode));
        Tensor::new(vec![self.outputs(), self.product(&self.summed), kh, kw], data)
    }
}

/// Indices of the stages that stride and pad along the height and along the width: those with the window, or else the first.
pub(super) fn window_stages(stages: &[Stage<'_>]) -> [usize; 2] {
    [0, 1].map(|axis| stages.iter().position(|stage| stage.window[axis]).unwrap_or(0))
}

/// Whether the last stage gives all outputs at once, so that bias and row scale fit in it.
pub(super) fn closes(stages: &[Stage<'_>]) -> bool {
    stages.last().is_some_and(|stage| stage.rest.is_empty())
}
