# Each object that lands in incoming/ becomes a message in a queue. With BERT_UPLOADS_QUEUE_URL it wakes the listener, which
# then needs no polling; it depends on no single message (docs/astro-cloud.md).

resource "aws_s3_bucket_notification" "lake" {
  bucket      = aws_s3_bucket.lake.id
  eventbridge = true
}

resource "aws_cloudwatch_event_rule" "uploads" {
  name        = "${var.name}-uploads"
  description = "Objects created below incoming/"
  event_pattern = jsonencode({
    source      = ["aws.s3"]
    detail-type = ["Object Created"]
    detail = {
      bucket = { name = [aws_s3_bucket.lake.id] }
      object = { key = [{ prefix = "incoming/" }] }
    }
  })
}

resource "aws_cloudwatch_event_target" "uploads" {
  rule = aws_cloudwatch_event_rule.uploads.name
  arn  = aws_sqs_queue.uploads.arn
}

resource "aws_sqs_queue" "uploads" {
  name                       = "${var.name}-uploads"
  sqs_managed_sse_enabled    = true
  message_retention_seconds  = 1209600 # 14 days, the most
  visibility_timeout_seconds = 30      # deleted as soon as it is received
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.uploads_failed.arn
    maxReceiveCount     = 5
  })
}

resource "aws_sqs_queue" "uploads_failed" {
  name                      = "${var.name}-uploads-failed"
  sqs_managed_sse_enabled   = true
  message_retention_seconds = 1209600
}

data "aws_iam_policy_document" "uploads" {
  statement {
    sid       = "OnlyThisRule"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.uploads.arn]
    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }
    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_cloudwatch_event_rule.uploads.arn]
    }
  }
  statement {
    sid       = "OnlyTls"
    effect    = "Deny"
    actions   = ["sqs:*"]
    resources = [aws_sqs_queue.uploads.arn]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_sqs_queue_policy" "uploads" {
  queue_url = aws_sqs_queue.uploads.id
  policy    = data.aws_iam_policy_document.uploads.json
}
