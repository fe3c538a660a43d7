output "bucket" {
  description = "BERT_BUCKET"
  value       = aws_s3_bucket.lake.id
}

output "airflow_role_arn" {
  description = "workload_identity in deployment.yaml"
  value       = one(aws_iam_role.airflow[*].arn)
}

output "airflow_policy_arn" {
  description = "For a role of your own"
  value       = aws_iam_policy.airflow.arn
}

output "trainer_policy_arn" {
  description = "For a role of your own"
  value       = aws_iam_policy.trainer.arn
}

output "server_policy_arn" {
  description = "For the role of the model server's pods"
  value       = aws_iam_policy.server.arn
}

output "uploads_queue_url" {
  description = "BERT_UPLOADS_QUEUE_URL: where each upload becomes a message"
  value       = aws_sqs_queue.uploads.url
}
