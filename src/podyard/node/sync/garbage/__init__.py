"""What nobody wants any more: dead containers, old sandboxes, files of gone Pods."""
