"""What judges our mails: html-validate and caniemail's data (npm), SpamAssassin, rspamd. Nothing of it is installed with us."""
