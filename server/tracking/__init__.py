"""What a run tells of itself elsewhere: MLflow, TensorBoard, a webhook. None of it is needed."""
