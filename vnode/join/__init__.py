"""Accounts, rights and kubeconfigs for the two sides, made once by an administrator and not by the running process."""
