"""What is measured on a GPU, part by part; benchmarks/gpu.sh runs it."""
