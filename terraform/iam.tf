# What each side may do follows include/lake.py, folder by folder. tests/unit/test_terraform.py compares them.

locals {
  airflow_writes  = ["claims", "quarantine", "staging", "datasets", "golden", "waiting", "jobs", "models", "reports", "raw", "features", "sightings", "predictions", "feedback", "monitoring", "alerts", "drafts", "tokens", "backups", "retrainings", "dvc", "incoming/feedback", "incoming/console", "xcom", "logs"]
  airflow_deletes = ["incoming"]                                                                                     # after the claim's copy
  airflow_expires = ["claims", "waiting", "staging", "datasets", "jobs", "alerts", "drafts", "sightings", "backups"] # marks of ended batches and sent alerts; what lake_cleanup finds old; rows that joined; old backups
  trainer_reads   = ["jobs", "datasets", "models"]                                                                   # a model can be the base of the next
  trainer_writes  = ["jobs/*", "datasets/*/tokens/*"]
  trainer_deletes = ["jobs"]                              # old checkpoints
  server_reads    = ["models", "predictions", "feedback"] # of its own log it gives texts out to be labelled
  server_writes   = ["predictions", "feedback"]
  encrypted       = var.kms_key_arn == null ? [] : [var.kms_key_arn]
}

data "aws_iam_policy_document" "airflow" {
  # Without a condition on s3:prefix: HEAD carries none, and would answer "forbidden" in place of "not there".
  statement {
    sid       = "List"
    actions   = ["s3:ListBucket", "s3:GetBucketLocation"]
    resources = [aws_s3_bucket.lake.arn]
  }
  statement {
    sid       = "Read" # all of it: a run can be started on any folder
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.lake.arn}/*"]
  }
  statement {
    sid       = "Write"
    actions   = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"] # the console puts parts together
    resources = [for folder in local.airflow_writes : "${aws_s3_bucket.lake.arn}/${folder}/*"]
  }
  statement {
    sid       = "Delete"
    actions   = ["s3:DeleteObject"]
    resources = [for folder in concat(local.airflow_deletes, local.airflow_expires) : "${aws_s3_bucket.lake.arn}/${folder}/*"]
  }
  statement {
    sid       = "HearOfUploads"
    actions   = ["sqs:ReceiveMessage", "sqs:DeleteMessage"]
    resources = [aws_sqs_queue.uploads.arn]
  }
  dynamic "statement" {
    for_each = local.encrypted
    content {
      sid       = "Encrypt"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }
}

data "aws_iam_policy_document" "trainer" {
  statement {
    sid       = "List"
    actions   = ["s3:ListBucket", "s3:GetBucketLocation"]
    resources = [aws_s3_bucket.lake.arn]
  }
  statement {
    sid       = "Read" # not golden/: what trains never sees what it is judged by
    actions   = ["s3:GetObject"]
    resources = [for folder in local.trainer_reads : "${aws_s3_bucket.lake.arn}/${folder}/*"]
  }
  statement {
    sid       = "Write"
    actions   = ["s3:PutObject", "s3:AbortMultipartUpload"]
    resources = [for path in local.trainer_writes : "${aws_s3_bucket.lake.arn}/${path}"]
  }
  statement {
    sid       = "Delete"
    actions   = ["s3:DeleteObject"]
    resources = [for folder in local.trainer_deletes : "${aws_s3_bucket.lake.arn}/${folder}/*"]
  }
  dynamic "statement" {
    for_each = local.encrypted
    content {
      sid       = "Encrypt"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }
}

data "aws_iam_policy_document" "server" {
  statement {
    sid       = "List"
    actions   = ["s3:ListBucket", "s3:GetBucketLocation"]
    resources = [aws_s3_bucket.lake.arn]
  }
  statement {
    sid       = "Read" # no file that anybody uploaded
    actions   = ["s3:GetObject"]
    resources = [for folder in local.server_reads : "${aws_s3_bucket.lake.arn}/${folder}/*"]
  }
  statement {
    sid       = "Write"
    actions   = ["s3:PutObject", "s3:AbortMultipartUpload"]
    resources = [for folder in local.server_writes : "${aws_s3_bucket.lake.arn}/${folder}/*"]
  }
  dynamic "statement" {
    for_each = local.encrypted
    content {
      sid       = "Encrypt"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_policy" "airflow" {
  name   = "${var.name}-airflow"
  policy = data.aws_iam_policy_document.airflow.json
}

resource "aws_iam_policy" "trainer" {
  name   = "${var.name}-trainer"
  policy = data.aws_iam_policy_document.trainer.json
}

resource "aws_iam_policy" "server" {
  name   = "${var.name}-server"
  policy = data.aws_iam_policy_document.server.json
}

resource "aws_iam_role" "airflow" {
  count              = var.airflow_trust_policy == null ? 0 : 1
  name               = "${var.name}-airflow"
  assume_role_policy = var.airflow_trust_policy
}

resource "aws_iam_role_policy_attachment" "airflow" {
  count      = length(aws_iam_role.airflow)
  role       = aws_iam_role.airflow[0].name
  policy_arn = aws_iam_policy.airflow.arn
}

data "aws_iam_policy_document" "pods" {
  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]
    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "trainer" {
  count              = var.eks_cluster_name == null ? 0 : 1
  name               = "${var.name}-trainer"
  assume_role_policy = data.aws_iam_policy_document.pods.json
}

resource "aws_iam_role_policy_attachment" "trainer" {
  count      = length(aws_iam_role.trainer)
  role       = aws_iam_role.trainer[0].name
  policy_arn = aws_iam_policy.trainer.arn
}

resource "aws_eks_pod_identity_association" "trainer" {
  count           = length(aws_iam_role.trainer)
  cluster_name    = var.eks_cluster_name
  namespace       = var.training_namespace
  service_account = var.training_service_account
  role_arn        = aws_iam_role.trainer[0].arn
}
