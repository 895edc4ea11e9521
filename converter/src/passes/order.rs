//! Orders of elements: arrays whose axes are stored in another order than they are counted.
//!
//! An order is a list of row-major indices; element `k` of what is stored is element `order[k]` of the array. Takes and gives such
//! lists, and says which of them are permutations of axes.

/// Elements `order` of `data`.
pub(crate) fn gathered<T: Copy>(data: &[T], order: &[usize]) -> Vec<T> {
    order.iter().map(|index| data[*index]).collect()
}

/// Element order of an array of `shape` stored with its axes in the order `axes`. Of axes that are left out, only index 0 counts.
pub(crate) fn axis_order(shape: &[usize], axes: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    let mut order = vec![0];
    for axis in axes {
        order = order
            .iter()
            .flat_map(|base| (0..shape[*axis]).map(move |k| (base, k)))
            .map(|(base, k)| base + k * strides[*axis])
            .collect();
    }
    order
}

/// The order of the axes of `shape` that gives `order`, if there is one. The identity comes first.
pub(super) fn axis_permutation(shape: &[usize], order: &[usize]) -> Option<Vec<usize>> {
    fn extend(prefix: &mut Vec<usize>, shape: &[usize], order: &[usize]) -> bool {
        if prefix.len() == shape.len() {
            return axis_order(shape, prefix) == order;
        }
        for axis in 0..shape.len() {
            if !prefix.contains(&axis) {
                prefix.push(axis);
                if extend(prefix, shape, order) {
                    return true;
                }
                prefix.pop();
            }
        }
        false
    }
    let mut axes = Vec::new();
    extend(&mut axes, shape, order).then_some(axes)
}

/// Writes `source` (output `k` is input `source[k]`) as a permutation of the fewest axes: input extents and axis order.
/// `None` if it is no permutation of axes.
pub(super) fn as_permute(source: &[usize]) -> Option<(Vec<usize>, Vec<usize>)> {
    let mut loops = Vec::new();
    let mut block = 1;
    while block < source.len() {
        let stride = source[block];
        let mut count = 1;
        while (count + 1) * block <= source.len() && source[count * block] == count * stride {
            count += 1;
        }
        if count == 1 {
            return None;
        }
        loops.push((count, stride));
        block *= count;
    }
    loops.reverse();
    let mut input: Vec<usize> = (0..loops.len()).collect();
    input.sort_by_key(|k| std::cmp::Reverse(loops[*k].1));
    let shape: Vec<usize> = input.iter().map(|k| loops[*k].0).collect();
    let order: Vec<usize> =
        (0..loops.len()).map(|k| input.iter().position(|i| *i == k)).collect::<Option<_>>()?;
    (shape.iter().product::<usize>() == source.len() && axis_order(&shape, &order) == source)
        .then_some((shape, order))
}

/// Writes `source` as permutations of at most four axes, one after the other: input extents and axis order of each. `None` if it is
/// no permutation of axes.
pub(super) fn as_permutes(source: &[usize]) -> Option<Vec<(Vec<usize>, Vec<usize>)>> {
    let (mut shape, mut order) = as_permute(source)?;
    let mut permutes = Vec::new();
    while shape.len() > 4 {
        let axes = best_move(&order);
        let (merged, blocks) = without_neighbours(&shape, &axes);
        permutes.push((merged, blocks));
        let moved: Vec<usize> = axes.iter().map(|axis| shape[*axis]).collect();
        let at = inverse(&axes);
        let left: Vec<usize> = order.iter().map(|axis| at[*axis]).collect();
        (shape, order) = without_neighbours(&moved, &left);
    }
    permutes.push((shape, order));
    Some(permutes)
}

/// The exchange of four blocks of axes after which the fewest axes are left to permute on the way to `order`. One block behind
/// its predecessor is one axis fewer, so there is always progress.
fn best_move(order: &[usize]) -> Vec<usize> {
    let rank = order.len();
    let mut best = (usize::MAX, Vec::new());
    for a in 1..rank {
        for b in a + 1..rank {
            for c in b + 1..rank {
                let blocks = [0..a, a..b, b..c, c..rank];
                for code in 0..256 {
                    let picks = [code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6];
                    if (0..4).all(|block| picks.contains(&block)) {
                        let axes: Vec<usize> =
                            picks.iter().flat_map(|block| blocks[*block].clone()).collect();
                        let at = inverse(&axes);
                        let left = order.windows(2).filter(|pair| at[pair[1]] != at[pair[0]] + 1).count();
                        if left < best.0 {
                            best = (left, axes);
                        }
                    }
                }
            }
        }
    }
    best.1
}

/// The permutation of axes with those merged that stay neighbours.
fn without_neighbours(shape: &[usize], order: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let at = inverse(order);
    let mut extents: Vec<usize> = Vec::new();
    let mut firsts = Vec::new();
    for (axis, extent) in shape.iter().enumerate() {
        match extents.last_mut() {
            Some(last) if at[axis] == at[axis - 1] + 1 => *last *= extent,
            _ => {
                extents.push(*extent);
                firsts.push(axis);
            }
        }
    }
    let merged = order.iter().filter_map(|axis| firsts.iter().position(|first| first == axis)).collect();
    (extents, merged)
}

/// The order that undoes `order`.
pub(super) fn inverse(order: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; order.len()];
    for (k, index) in order.iter().enumerate() {
        inverse[*index] = k;
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers below `bound`, one after the other.
    fn numbers(seed: u64) -> impl FnMut(usize) -> usize {
        let mut state = seed.wrapping_mul(2) | 1;
        move |bound| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % bound
        }
    }

    fn shuffled(len: usize, next: &mut impl FnMut(usize) -> usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for k in (1..len).rev() {
            order.swap(k, next(k + 1));
        }
        order
    }

    #[test]
    fn every_permutation_of_axes_is_found() {
        let mut next = numbers(1);
        for _ in 0..400 {
            let shape: Vec<usize> = (0..1 + next(6)).map(|_| 1 + next(4)).collect();
            let axes = shuffled(shape.len(), &mut next);
            let source = axis_order(&shape, &axes);
            let (extents, order) = as_permute(&source).expect("permutes axes");
            assert!(extents.len() <= shape.len());
            assert_eq!(axis_order(&extents, &order), source, "{shape:?} {axes:?}");
            let composed: Vec<usize> = inverse(&source).iter().map(|k| source[*k]).collect();
            assert!(composed.is_sorted());
        }
    }

    #[test]
    fn permutes_of_four_axes_make_up_any_other() {
        let mut next = numbers(3);
        let mut most = 0;
        for _ in 0..300 {
            let shape: Vec<usize> = (0..1 + next(8)).map(|_| 1 + next(3)).collect();
            let source = axis_order(&shape, &shuffled(shape.len(), &mut next));
            let permutes = as_permutes(&source).expect("permutes axes");
            let mut moved: Vec<usize> = (0..source.len()).collect();
            for (extents, axes) in &permutes {
                assert!(extents.len() <= 4);
                moved = axis_order(extents, axes).iter().map(|k| moved[*k]).collect();
            }
            assert_eq!(moved, source);
            most = most.max(permutes.len());
        }
        assert!((2..=3).contains(&most), "{most}");
    }

    #[test]
    fn any_order_is_a_permutation_or_none() {
        let mut next = numbers(2);
        for round in 0..2000 {
            let source = shuffled(1 + round % 13, &mut next);
            if let Some((extents, order)) = as_permute(&source) {
                assert_eq!(axis_order(&extents, &order), source);
            }
        }
        // Blocks of 4 do not fill 5.
        assert_eq!(as_permute(&[0, 1, 4, 2, 3]), None);
    }
}
