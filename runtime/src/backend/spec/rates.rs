//! The fitted rates, in hundredths of an instruction: of a step, a position, an output, a run, a product, and a product of the tail.

use super::select::SCALAR;
use super::{Kernel, Loops, Rates};
use crate::ops::OpCode;

/// Portable code.
const fn kernel(op: OpCode, lanes: u16, rates: [u32; 6]) -> Kernel {
    Kernel { op, name: SCALAR, loops: Loops::Lanes(lanes), rates: Rates::new(rates) }
}

/// A core's own code.
#[allow(dead_code, reason = "for kernels that are measured")]
const fn own(op: OpCode, name: &'static str, loops: Loops, rates: [u32; 6]) -> Kernel {
    Kernel { op, name, loops, rates: Rates::new(rates) }
}

pub static ARMV6_M: &[Kernel] = &[
    kernel(OpCode::Conv2dI8, 4, [877302, 8733, 16099, 7600, 897, 491]),
    kernel(OpCode::Conv2dI16, 4, [812112, 13211, 17149, 6849, 937, 507]),
    kernel(OpCode::Conv2dF32, 16, [0, 0, 20420, 0, 20402, 2165]),
    kernel(OpCode::Conv2dI4, 8, [836138, 8991, 15474, 9713, 1014, 374]),
    kernel(OpCode::DepthwiseConv2dI8, 16, [326044, 0, 15073, 0, 1319, 1733]),
    kernel(OpCode::DepthwiseConv2dI16, 16, [1164464, 0, 12209, 11284, 722, 311]),
    kernel(OpCode::DepthwiseConv2dF32, 16, [3038214, 0, 0, 47875, 16489, 0]),
    kernel(OpCode::DenseI8, 4, [736217, 3648, 13757, 0, 953, 154]),
    kernel(OpCode::DenseI16, 2, [796325, 0, 13749, 0, 1001, 497]),
    kernel(OpCode::DenseF32, 16, [563499, 0, 0, 0, 21379, 4023]),
    kernel(OpCode::DenseI4, 8, [728446, 7341, 13794, 0, 993, 337]),
    kernel(OpCode::MaxPool2dI8, 16, [590900, 10393, 2461, 3445, 997, 0]),
    kernel(OpCode::MaxPool2dF32, 16, [604257, 10220, 8063, 8064, 3314, 310]),
    kernel(OpCode::AveragePool2dI8, 16, [0, 53097, 16197, 2317, 49, 300]),
    kernel(OpCode::AveragePool2dF32, 16, [1328858, 106189, 18949, 4113, 5912, 2669]),
    kernel(OpCode::AddI8, 1, [618184, 0, 22992, 0, 0, 0]),
    kernel(OpCode::AddF32, 1, [469259, 0, 13366, 0, 0, 0]),
    kernel(OpCode::MulF32, 1, [1224243, 0, 14430, 0, 0, 0]),
    kernel(OpCode::TableI8, 1, [389730, 0, 542, 0, 0, 0]),
    kernel(OpCode::UnaryF32, 1, [7146820, 0, 157813, 0, 26831, 0]),
    kernel(OpCode::SoftmaxI8, 1, [1415397, 0, 87122, 0, 0, 0]),
    kernel(OpCode::SoftmaxI16, 1, [1177900, 0, 34000, 0, 0, 0]),
    kernel(OpCode::SoftmaxF32, 1, [581682, 0, 265551, 0, 0, 0]),
    kernel(OpCode::PermuteI8, 1, [454313, 4063, 11605, 0, 0, 0]),
    kernel(OpCode::PermuteF32, 1, [455772, 5164, 10898, 0, 0, 0]),
    kernel(OpCode::Mean2dI8, 16, [709213, 80217, 2939, 3520, 788, 0]),
];

pub static ARMV7_M: &[Kernel] = &[
    kernel(OpCode::Conv2dI8, 4, [371610, 7533, 9869, 6082, 698, 308]),
    kernel(OpCode::Conv2dI16, 4, [319289, 12422, 10400, 5066, 661, 221]),
    kernel(OpCode::Conv2dF32, 16, [0, 0, 14909, 0, 12842, 1725]),
    kernel(OpCode::Conv2dI4, 8, [358804, 6350, 8847, 6782, 650, 213]),
    kernel(OpCode::DepthwiseConv2dI8, 16, [178838, 0, 7981, 1773, 1048, 1083]),
    kernel(OpCode::DepthwiseConv2dI16, 16, [627532, 0, 6399, 9553, 572, 192]),
    kernel(OpCode::DepthwiseConv2dF32, 16, [1907143, 0, 1785, 23086, 11050, 0]),
    kernel(OpCode::DenseI8, 16, [308850, 2837, 7122, 0, 677, 15]),
    kernel(OpCode::DenseI16, 8, [331100, 0, 7055, 0, 671, 167]),
    kernel(OpCode::DenseF32, 16, [261443, 0, 979, 0, 12873, 2382]),
    kernel(OpCode::DenseI4, 8, [306166, 2883, 7834, 0, 616, 130]),
    kernel(OpCode::MaxPool2dI8, 16, [247642, 9606, 1695, 4313, 454, 203]),
    kernel(OpCode::MaxPool2dF32, 16, [301472, 10308, 6839, 6994, 2875, 214]),
    kernel(OpCode::AveragePool2dI8, 16, [252350, 13240, 2864, 4979, 103, 296]),
    kernel(OpCode::AveragePool2dF32, 16, [833536, 75825, 12692, 3000, 4746, 2031]),
    kernel(OpCode::AddI8, 1, [255694, 0, 9900, 0, 0, 0]),
    kernel(OpCode::AddF32, 1, [183809, 0, 11003, 0, 0, 0]),
    kernel(OpCode::MulF32, 1, [325601, 0, 10312, 0, 0, 0]),
    kernel(OpCode::TableI8, 1, [175696, 0, 518, 0, 0, 0]),
    kernel(OpCode::UnaryF32, 1, [3764766, 0, 107112, 0, 12092, 0]),
    kernel(OpCode::SoftmaxI8, 1, [326714, 0, 27307, 0, 0, 0]),
    kernel(OpCode::SoftmaxI16, 1, [290600, 0, 20000, 0, 0, 0]),
    kernel(OpCode::SoftmaxF32, 1, [269944, 0, 163240, 0, 0, 0]),
    kernel(OpCode::PermuteI8, 1, [211325, 3870, 7608, 0, 0, 0]),
    kernel(OpCode::PermuteF32, 1, [212728, 4083, 7582, 0, 0, 0]),
    kernel(OpCode::Mean2dI8, 16, [262881, 70415, 2406, 3252, 542, 0]),
];

pub static ARMV7E_M: &[Kernel] = &[
    kernel(OpCode::Conv2dI8, 8, [372345, 7739, 9190, 6155, 599, 92]),
    kernel(OpCode::Conv2dI16, 16, [211944, 18919, 10624, 4297, 568, 73]),
    kernel(OpCode::Conv2dF32, 16, [295386, 5988, 3992, 5846, 399, 98]),
    kernel(OpCode::Conv2dI4, 8, [349133, 7537, 9017, 6906, 549, 225]),
    kernel(OpCode::DepthwiseConv2dI8, 16, [182458, 0, 8064, 2210, 892, 1116]),
    kernel(OpCode::DepthwiseConv2dI16, 16, [660136, 0, 6246, 9699, 481, 345]),
    kernel(OpCode::DepthwiseConv2dF32, 16, [106849, 0, 4368, 2097, 562, 1075]),
    kernel(OpCode::DenseI8, 4, [310010, 2512, 7673, 0, 577, 58]),
    kernel(OpCode::DenseI16, 8, [334971, 0, 7064, 0, 577, 192]),
    kernel(OpCode::DenseF32, 16, [222495, 0, 3101, 0, 348, 200]),
    kernel(OpCode::DenseI4, 8, [307457, 3636, 7996, 0, 518, 131]),
    kernel(OpCode::MaxPool2dI8, 16, [269953, 10834, 1673, 4155, 544, 175]),
    kernel(OpCode::MaxPool2dF32, 16, [262986, 11863, 1889, 4651, 473, 227]),
    kernel(OpCode::AveragePool2dI8, 16, [252403, 13060, 2878, 4895, 161, 258]),
    kernel(OpCode::AveragePool2dF32, 16, [278182, 10809, 1940, 4798, 0, 499]),
    kernel(OpCode::AddI8, 1, [253478, 0, 9101, 0, 0, 0]),
    kernel(OpCode::AddF32, 1, [191099, 0, 1400, 0, 0, 0]),
    kernel(OpCode::MulF32, 1, [192540, 0, 1400, 0, 0, 0]),
    kernel(OpCode::TableI8, 1, [175601, 0, 517, 0, 0, 0]),
    kernel(OpCode::UnaryF32, 1, [210043, 0, 5221, 4, 248, 0]),
    kernel(OpCode::SoftmaxI8, 1, [318211, 0, 27285, 0, 0, 0]),
    kernel(OpCode::SoftmaxI16, 1, [314600, 0, 18000, 0, 0, 0]),
    kernel(OpCode::SoftmaxF32, 1, [182271, 4202, 4919, 0, 0, 0]),
    kernel(OpCode::PermuteI8, 1, [211509, 3923, 7593, 0, 0, 0]),
    kernel(OpCode::PermuteF32, 1, [208935, 4050, 7505, 0, 0, 0]),
    kernel(OpCode::Mean2dI8, 16, [258004, 70117, 2406, 3241, 554, 0]),
];

pub static ARMV8_M: &[Kernel] = &[
    kernel(OpCode::Conv2dI8, 8, [366202, 7863, 9501, 6146, 700, 91]),
    kernel(OpCode::Conv2dI16, 16, [269037, 15254, 10814, 4622, 656, 43]),
    kernel(OpCode::Conv2dF32, 16, [293962, 5989, 3801, 5832, 399, 98]),
    kernel(OpCode::Conv2dI4, 8, [350381, 6862, 8972, 6938, 649, 191]),
    kernel(OpCode::DepthwiseConv2dI8, 16, [216743, 0, 8069, 2410, 981, 1046]),
    kernel(OpCode::DepthwiseConv2dI16, 16, [622133, 0, 6402, 9706, 584, 303]),
    kernel(OpCode::DepthwiseConv2dF32, 16, [109915, 0, 3914, 2279, 550, 1101]),
    kernel(OpCode::DenseI8, 16, [308019, 2969, 7473, 0, 678, 28]),
    kernel(OpCode::DenseI16, 8, [333378, 0, 7092, 0, 676, 216]),
    kernel(OpCode::DenseF32, 16, [222726, 0, 2862, 0, 349, 202]),
    kernel(OpCode::DenseI4, 8, [304410, 3534, 7970, 0, 619, 147]),
    kernel(OpCode::MaxPool2dI8, 16, [273872, 10584, 1680, 4164, 542, 179]),
    kernel(OpCode::MaxPool2dF32, 16, [259784, 12844, 1562, 4608, 246, 371]),
    kernel(OpCode::AveragePool2dI8, 16, [254665, 12754, 2876, 4943, 158, 260]),
    kernel(OpCode::AveragePool2dF32, 16, [277210, 11148, 1735, 4696, 0, 491]),
    kernel(OpCode::AddI8, 1, [253308, 0, 9100, 0, 0, 0]),
    kernel(OpCode::AddF32, 1, [190509, 0, 1125, 0, 0, 0]),
    kernel(OpCode::MulF32, 1, [186132, 0, 1128, 0, 0, 0]),
    kernel(OpCode::TableI8, 1, [177718, 0, 516, 0, 0, 0]),
    kernel(OpCode::UnaryF32, 1, [212145, 0, 4822, 0, 440, 0]),
    kernel(OpCode::SoftmaxI8, 1, [320264, 0, 27273, 0, 0, 0]),
    kernel(OpCode::SoftmaxI16, 1, [318600, 0, 17500, 0, 0, 0]),
    kernel(OpCode::SoftmaxF32, 1, [181325, 4135, 4827, 0, 0, 0]),
    kernel(OpCode::PermuteI8, 1, [209073, 3987, 7592, 0, 0, 0]),
    kernel(OpCode::PermuteF32, 1, [207571, 3839, 7540, 0, 0, 0]),
    kernel(OpCode::Mean2dI8, 16, [255285, 70279, 2410, 3254, 554, 0]),
];
