variable "name" {
  description = "Prefix of everything that is made here"
  type        = string
  default     = "bert"
}

variable "region" {
  description = "The Astro deployment's region, too"
  type        = string
}

variable "bucket" {
  description = "The bucket everything lies in: BERT_BUCKET. Bucket names are unique in all of AWS"
  type        = string
}

variable "kms_key_arn" {
  description = "Your own key for the bucket; null: S3's"
  type        = string
  default     = null
}

variable "airflow_trust_policy" {
  description = "Who may be Airflow, as JSON: the trust policy that Astro shows for the deployment. null: no role, only the policy"
  type        = string
  default     = null
}

variable "airflow_url" {
  description = "Airflow's address as a browser has it (https://…, without a path): its console may put large files into the bucket. null: it may not"
  type        = string
  default     = null
}

variable "eks_cluster_name" {
  description = "The cluster that trains, for EKS Pod Identity. null: no role, only the policy"
  type        = string
  default     = null
}

variable "training_namespace" {
  description = "BERT_POD_NAMESPACE"
  type        = string
  default     = "training"
}

variable "training_service_account" {
  description = "BERT_POD_SERVICE_ACCOUNT"
  type        = string
  default     = "trainer"
}

variable "quarantine_days" {
  description = "After this rejected rows and unreadable files are deleted; they may hold personal data"
  type        = number
  default     = 365
}

variable "old_version_days" {
  description = "How long overwritten and deleted objects can be brought back"
  type        = number
  default     = 90
}
