//! Batches give what single runs give, whatever the number of threads.

use tucano::ErrorKind;
use tucano::host::Runner;
use tucano_converter::convert::{Options, convert};
use tucano_converter::search::Silent;
use tucano_tests::{models, read};

#[test]
fn batches_are_runs_one_after_the_other() {
    let (graph, data) = read(&models().join("resnet8.onnx"), &models().join("resnet8.npz"), None).unwrap();
    for int8 in [false, true] {
        let options = Options { int8, ..Options::default() };
        let blob = convert(&graph, Some(&data), &options, &Silent).unwrap().blob;
        let mut runner = Runner::new(&blob).unwrap();
        let single: Vec<f32> =
            (0..data.samples).flat_map(|k| runner.run(&data.sample(k)).unwrap().concat()).collect();
        let raw: Vec<u8> = (0..data.samples)
            .flat_map(|k| {
                let stored = runner.quantise(&data.sample(k)).unwrap().concat();
                runner.run_raw(&[&stored]).unwrap().concat()
            })
            .collect();
        assert!(single.iter().any(|score| *score != single[0]), "all outputs are the same");
        let inputs = [data.inputs[0].as_slice()];
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                assert_eq!(
                    runner.run_batch(&inputs, data.samples).unwrap(),
                    std::slice::from_ref(&single),
                    "{threads}"
                );
                assert_eq!(
                    runner.run_batch_raw(&inputs, data.samples).unwrap(),
                    std::slice::from_ref(&raw),
                    "{threads}"
                );
                // An error is that of the first sample that has one.
                let mut broken = data.inputs[0].clone();
                let last = broken.len() - 1;
                (broken[5], broken[last]) = (f32::NAN, f32::INFINITY);
                let error = runner.run_batch(&[&broken], data.samples).unwrap_err();
                assert_eq!((error.kind, error.value), (ErrorKind::NotFinite, 5), "{threads}");
            });
        }
        let kind = |inputs: &[&[f32]], samples| {
            Runner::new(&blob).unwrap().run_batch(inputs, samples).unwrap_err().kind
        };
        assert_eq!(kind(&[], 1), ErrorKind::InputCount);
        assert_eq!(kind(&inputs, data.samples - 1), ErrorKind::InputLength);
        assert_eq!(kind(&inputs, usize::MAX), ErrorKind::InputLength);
        assert_eq!(runner.run_batch(&[&[]], 0).unwrap(), [Vec::<f32>::new()]);
    }
}
